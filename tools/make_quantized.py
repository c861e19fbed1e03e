"""Writes tiny quantised checkpoints as AWQ, GPTQ and compressed-tensors store them, with what they say by other programs.

usage: python tools/make_quantized.py OUT NAME ...      NAME: a key of RECIPES
needs: numpy, torch (the CPU is enough), transformers, safetensors, compressed-tensors; golden.json records their versions.

Per name: config.json, model.safetensors, and golden.json with the SHA-256 of every matrix as f32, row after row. Recipes with
two layers also have what tools/make_golden.py writes: logits and greedy tokens of transformers (eager, f32) with those
matrices. AWQ and GPTQ are packed here, from the layouts that AutoAWQ and AutoGPTQ publish; compressed-tensors packs and unpacks
its own.
"""

import hashlib
import json
import pathlib
import sys

import compressed_tensors
import numpy
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers import LlamaConfig

from make_golden import randomise

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
BIG = dict(
    vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    tie_word_embeddings=True,
)  # fmt: skip
SMALL = BIG | dict(vocab_size=32, intermediate_size=128, num_hidden_layers=1)


def awq(group):
    config = dict(quant_method="awq", bits=4, group_size=group, zero_point=True, version="gemm", modules_to_not_convert=None)
    return config, lambda weight, rng: pack_awq(*quantise(weight, 4, group, False))


def gptq(bits, group, symmetric, v2=False, act_order=False):
    config = dict(quant_method="gptq", bits=bits, group_size=group, sym=symmetric, desc_act=act_order, true_sequential=True)
    if v2:
        config["checkpoint_format"] = "gptq_v2"

    def pack(weight, rng):
        cols = weight.shape[1]
        group_of = numpy.arange(cols) // (group if group > 0 else cols)
        if act_order:
            group_of = rng.permutation(group_of)
        # What is decoded to f16 at load has to be an f16: few bits of scale.
        return pack_gptq(*quantise(weight, bits, group, symmetric, group_of, 6 if act_order else 11), bits, group_of, v2)

    return config, pack


def compressed(format, bits, strategy, group, symmetric, dtype, inputs=None):
    weights = QuantizationArgs(num_bits=bits, type="int", strategy=strategy, group_size=group, symmetric=symmetric)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs, format=format)
    config = dict(
        quant_method="compressed-tensors", format=format, quantization_status="compressed", ignore=["lm_head"],
        config_groups=dict(group_0=json.loads(scheme.model_dump_json())), kv_cache_scheme=None,
    )  # fmt: skip

    def pack(weight, rng):
        columns = group or weight.shape[1]
        low, high = weight.min(), weight.max()
        whole = weight if strategy != "tensor" else numpy.tile([[low, high]], (1, columns // 2)).astype(weight.dtype)
        _, scale, zero, *_ = quantise(whole, bits, columns, symmetric)
        scale, zero = torch.tensor(scale).to(dtype), torch.tensor(zero - 2 ** (bits - 1)).to(torch.int8)
        if strategy == "tensor":
            scale, zero = scale.reshape(1), zero.reshape(1)
        state = dict(weight=torch.tensor(weight), weight_scale=scale.float())
        state["weight_zero_point"] = zero
        compressor = BaseCompressor.get_value_from_registry(format)
        packed = compressor.compress(state, scheme)
        value = compressor.decompress(packed, scheme)["weight"].numpy()
        packed["weight_scale"] = scale
        return {name: tensor for name, tensor in packed.items() if tensor is not None}, value

    return config, pack


DYNAMIC = QuantizationArgs(num_bits=8, type="int", strategy="token", symmetric=True, dynamic=True)
RECIPES = {
    "awq": (BIG, *awq(64)),
    "gptq": (BIG, *gptq(4, 128, True)),
    "compressed_int8": (BIG, *compressed("int-quantized", 8, "channel", None, True, torch.bfloat16, DYNAMIC)),
    "compressed_int4": (SMALL, *compressed("pack-quantized", 4, "group", 32, False, torch.bfloat16)),
    "compressed_tensor": (SMALL, *compressed("pack-quantized", 8, "tensor", None, True, torch.float16)),
    "gptq_int8": (SMALL, *gptq(8, 32, False, v2=True)),
    "gptq_act_order": (SMALL, *gptq(4, 32, False, act_order=True)),
}


def quantise(weight, bits, group, symmetric, group_of=None, digits=11):
    """q [rows, cols] without a sign, and scale (f16, of so many binary digits) and zero point [rows, groups]."""
    rows, cols = weight.shape
    group = group if group and group > 0 else cols
    group_of = numpy.arange(cols) // group if group_of is None else group_of
    top = 2**bits - 1
    scale, zero = numpy.zeros((2, rows, group_of.max() + 1))
    for g in range(group_of.max() + 1):
        part = weight[:, group_of == g]
        low, high = numpy.minimum(part.min(1), 0), numpy.maximum(part.max(1), 0)
        if symmetric:
            scale[:, g], zero[:, g] = numpy.maximum(-low, high) / (top // 2), (top + 1) // 2
        else:
            scale[:, g] = (high - low) / top
            # The stored zero point of GPTQ's first version is one less, and 0 at least.
            zero[:, g] = numpy.clip(numpy.round(-low / scale[:, g]), 1, top)
    mantissa, exponent = numpy.frexp(scale)
    scale = numpy.ldexp(numpy.round(mantissa * 2**digits) / 2**digits, exponent).astype(numpy.float16).astype(numpy.float32)
    zero = zero.astype(numpy.int64)
    q = numpy.clip(numpy.round(weight / scale[:, group_of]) + zero[:, group_of], 0, top).astype(numpy.int64)
    return q, scale, zero, group_of


def dequantised(q, scale, zero, group_of):
    return scale[:, group_of] * (q - zero[:, group_of]).astype(numpy.float32)


def words(pieces):
    """Bits of int64 arrays, each at its shift, as i32."""
    return torch.tensor(sum(piece << shift for shift, piece in pieces).astype(numpy.uint32).view(numpy.int32))


def pack_awq(q, scale, zero, group_of):
    def pack(values):  # [inputs or groups, rows]
        return words([(4 * at, values[:, row::8]) for at, row in enumerate(AWQ_ORDER)])

    value = dequantised(q, scale, zero, group_of)
    return dict(qweight=pack(q.T), qzeros=pack(zero.T), scales=torch.tensor(scale.T.copy()).half()), value


def pack_gptq(q, scale, zero, group_of, bits, _, v2):
    each = 32 // bits
    columns = q.T
    stored = zero.T - (0 if v2 else 1)
    tensors = dict(
        qweight=words([(bits * at, columns[at::each]) for at in range(each)]),
        qzeros=words([(bits * at, stored[:, at::each]) for at in range(each)]),
        scales=torch.tensor(scale.T.copy()).half(),
        g_idx=torch.tensor(group_of.astype(numpy.int32)),
    )
    return tensors, dequantised(q, scale, zero, group_of)


def attempt(shape, pack, seed):
    torch.manual_seed(seed)
    rng = numpy.random.default_rng(seed)
    config = LlamaConfig(**shape)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    tensors, hashes = {}, {}
    with torch.no_grad():
        randomise(model, True)
        for name, parameter in model.named_parameters():
            if "proj" not in name:
                tensors[name] = parameter.half()
                parameter.copy_(tensors[name].float())
                continue
            packed, value = pack(parameter.numpy(), rng)
            module = name.removesuffix(".weight")
            tensors |= {f"{module}.{end}": tensor for end, tensor in packed.items()}
            hashes[name] = hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()
            parameter.copy_(torch.tensor(value))
    return model, tensors, hashes


def run(model, prompt):
    with torch.no_grad():
        logits = model(prompt).logits
        generated = model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        full = model(generated).logits
    best = full[0].topk(2).values
    return float((best[:, 0] - best[:, 1])[47:-1].min()), logits, generated, full


def main():
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        shape, quantization, pack = RECIPES[name]
        prompt = torch.randint(3, shape["vocab_size"], (1, 48), generator=torch.Generator().manual_seed(7))
        for seed in range(100):
            model, tensors, hashes = attempt(shape, pack, seed)
            if shape is SMALL:
                break
            margin, logits, generated, full = run(model, prompt)
            if margin > 0.03 and len(set(generated[0, 48:].tolist())) >= 8:
                break
        else:
            sys.exit(f"{name}: no seed under 100 has a margin over 0.03")
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        config = model.config.to_dict() | dict(quantization_config=quantization, dtype="float16")
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
        golden = dict(
            transformers=transformers.__version__, torch=torch.__version__, numpy=numpy.__version__,
            compressed_tensors=compressed_tensors.__version__, attn="eager", dtype="float32",
            command=f"python tools/make_quantized.py OUT {name}", seed=seed, sha256=hashes,
        )  # fmt: skip
        if shape is BIG:
            golden |= dict(min_greedy_margin=margin, prompt=prompt[0].tolist(), generated=generated[0].tolist())
            made = dict(input_ids=prompt.int(), logits=logits[0], generated=generated.int(), logits_generated=full[0])
            save_file({key: value.contiguous() for key, value in made.items()}, folder / "golden.safetensors")
        (folder / "golden.json").write_text(json.dumps(golden))
        print(f"{name}: seed {seed}")


if __name__ == "__main__":
    main()
