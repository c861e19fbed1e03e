"""Writes a tiny random Hugging Face checkpoint and its golden logits and greedy tokens, with transformers (eager, f32).

usage: python tools/make_golden.py OUT NAME ...      NAME: a key of CONFIGS
needs: torch (the CPU is enough), transformers, safetensors; golden.json records their versions.

Per name: config.json, model.safetensors, golden.safetensors {input_ids [1, 48], logits [48, vocab], generated [1, 72],
logits_generated [72, vocab]} and golden.json. Seeds are tried until the smallest gap of the two largest logits along the
greedy path is over 0.03, so that equal tokens are a fair test for f16 too.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, Qwen2Config

BASE = dict(
    vocab_size=320, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
CONFIGS = {
    "llama_yarn": LlamaConfig(**(BASE | dict(
        max_position_embeddings=512,
        rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64),
    ))),
    "llama_odd": LlamaConfig(**(BASE | dict(hidden_size=52, intermediate_size=70, vocab_size=331, head_dim=26))),
    "qwen2_swa": Qwen2Config(**(BASE | dict(
        tie_word_embeddings=False, use_sliding_window=True, sliding_window=10, max_window_layers=1,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
    ))),
}  # fmt: skip


def randomise(model, tied):
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            deviation = 0.25 if "lm_head" in name or ("embed" in name and tied) else 0.5 if "embed" in name else 0.12
            parameter.normal_(0.0, deviation)
        else:
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2 if "norm" in name else 0.1)


def attempt(config, seed):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    prompt = torch.randint(3, config.vocab_size, (1, 48), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        randomise(model, config.tie_word_embeddings)
        logits = model(prompt).logits
        generated = model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        full = model(generated).logits
    best = full[0].topk(2).values
    margin = float((best[:, 0] - best[:, 1])[47:-1].min())
    return margin, model, prompt, logits, generated, full


def main():
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        for seed in range(100):
            margin, model, prompt, logits, generated, full = attempt(CONFIGS[name], seed)
            if margin > 0.03 and len(set(generated[0, 48:].tolist())) >= 8:
                break
        else:
            sys.exit(f"{name}: no seed under 100 has a margin over 0.03")
        folder = out / name
        model.save_pretrained(folder)
        tensors = dict(input_ids=prompt.int(), logits=logits[0], generated=generated.int(), logits_generated=full[0])
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
        golden = dict(
            transformers=transformers.__version__, torch=torch.__version__, attn="eager", dtype="float32",
            command=f"python tools/make_golden.py OUT {name}", seed=seed, min_greedy_margin=margin,
            prompt=prompt[0].tolist(), generated=generated[0].tolist(),
        )  # fmt: skip
        (folder / "golden.json").write_text(json.dumps(golden))
        print(f"{name}: seed {seed}, margin {margin:.3f}")


if __name__ == "__main__":
    main()
