#!/usr/bin/env python3
"""Hugging Face transformers on a CUDA device: milliseconds a token over depth, and the longest context before it fails.

usage: transformers_peer.py [--model llama-2-13b] [--depth 1024,4096,…] [--gen 16] [--out F.json] [--max-seconds 400]

The model has the given shapes and random weights in f16, SDPA attention and the default (growing) cache, as a user
would have them. The cache is filled by reading a prompt in chunks, and goes on to the next depth until one fails; the
failure is told word for word. Without a CUDA device it runs a tiny model on the CPU, which only shows that the program
works.
"""

import argparse
import sys
import time

import common
from synthetic_gguf import SHAPES


def build(torch, transformers, name, device, dtype):
    """A causal model of the shapes of `name` with random weights, made on the device."""
    hidden, inner, layers, heads, kv_heads, vocab, theta = SHAPES[name]
    config = transformers.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        rope_theta=theta,
        max_position_embeddings=1 << 20,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def curve(args, torch, model, rows, clock, device):
    """A row a depth, to the first failure or the time limit; then the longest context, and which of these ended it."""
    cache, filled, ended = None, 0, "last asked"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    any_ids = lambda count: torch.randint(0, model.config.vocab_size, (1, count), device=device)

    def forward(ids):
        nonlocal cache
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        return out.logits

    forward(any_ids(4))
    cache = None
    for depth in sorted(common.numbers(args.depth)):
        rows.begin("depth", depth=depth)
        try:
            wait()
            began = time.perf_counter()
            added = depth - filled
            while filled < depth:
                clock.check()
                count = min(args.chunk, depth - filled)
                forward(any_ids(count))
                filled += count
            wait()
            reading = time.perf_counter() - began
            times = []
            for _ in range(args.gen):
                clock.check()
                wait()
                began = time.perf_counter()
                forward(any_ids(1)).argmax(-1).item()
                times.append((time.perf_counter() - began) * 1e3)
            filled += args.gen
            rows.row(
                depth=depth,
                ms_per_token=round(common.median(times), 4),
                lowest=round(min(times), 4),
                highest=round(max(times), 4),
                prompt_tokens=added,
                prompt_tokens_per_second=round(added / reading, 2),
            )
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            rows.failure("depth", f"{type(error).__name__}: {error}", depth=depth, reached=filled)
            ended = "failure"
            break
        except common.TimeUp:
            rows.failure("depth", f"stopped at the limit of {args.max_seconds:.0f} s", depth=depth, reached=filled)
            ended = "limit"
            break
    rows.row(longest_context=filled, ended_by=ended)


def main():
    parser = common.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter), 400
    )
    parser.add_argument("--model", default="llama-2-13b", choices=list(SHAPES))
    parser.add_argument("--depth", default="1024,4096,8192,16384,32768,49152,57344,61440,65536,69632,71680")
    parser.add_argument("--gen", type=int, default=16)
    parser.add_argument(
        "--chunk", type=int, default=2048, help="tokens of the prompt that are read at once [default: %(default)s]"
    )
    args = parser.parse_args()
    rows, clock = common.child_rows(), common.Clock(args.max_seconds)
    if rows is None:
        return common.supervise("Hugging Face transformers", args, clock)
    rows.begin("importing transformers")
    import torch
    import transformers

    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.float16) if cuda else ("cpu", torch.float32)
    name = args.model if cuda else "tiny"
    if not cuda:
        args.depth, args.gen = "64,128", 4
    rows.facts(
        version=f"transformers {transformers.__version__}, torch {torch.__version__}",
        model=f"{name}, random weights",
        device=torch.cuda.get_device_name(0) if cuda else "CPU, a tiny model: says nothing about speed",
    )
    rows.begin("making the model")
    with torch.inference_mode():
        curve(args, torch, build(torch, transformers, name, device, dtype), rows, clock, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
