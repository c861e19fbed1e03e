#!/usr/bin/env python3
"""Writes a GGUF file with seeded random weights of a known model's shapes and no vocabulary, for speed alone.

usage: synthetic_gguf.py llama-2-13b[:f16|:q4_0] OUT.gguf

Needs Python 3.9 and no packages. Weights repeat every 16 MiB, which no GPU's time depends on.
"""

import random
import struct
import sys

# name: hidden_size, intermediate_size, layers, heads, kv heads, vocabulary, rope theta
SHAPES = {
    "llama-2-7b": (4096, 11008, 32, 32, 32, 32000, 1e4),
    "llama-2-13b": (5120, 13824, 40, 40, 40, 32000, 1e4),
    "llama-3.1-8b": (4096, 14336, 32, 32, 8, 128256, 5e5),
    "tiny": (256, 512, 2, 4, 2, 512, 1e4),
}
CONTEXT = 1 << 20  # no limit by training: the adapter's memory is what is asked about
ALIGN = 32
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18)}  # GGUF type, elements a block, bytes a block
NOISE = 16 << 20


def noise(kind, seed):
    """About 16 MiB of whole blocks; values of at most 1/64 whatever the format."""
    rng = random.Random(seed)
    _, _, block = TYPES[kind]
    data = bytearray(rng.randbytes(NOISE // block * block))
    if kind == "f16":
        data[1::2] = data[1::2].translate(bytes((byte & 0x83) | 0x20 for byte in range(256)))  # exponent 2^-7
    elif kind == "q4_0":
        for offset, byte in enumerate(struct.pack("<e", 1 / 512)):
            data[offset::block] = bytes([byte]) * (len(data) // block)
    return bytes(data)


def tensors(shape, kind):
    """(name, columns, rows, format) of every tensor, in the order of the file; rows 0 for a vector."""
    hidden, inner, layers, heads, kv_heads, vocab, _ = shape
    kv = hidden // heads * kv_heads
    yield "token_embd.weight", hidden, vocab, kind
    for layer in range(layers):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", hidden, 0, "f32"
        yield at + "attn_q.weight", hidden, hidden, kind
        yield at + "attn_k.weight", hidden, kv, kind
        yield at + "attn_v.weight", hidden, kv, kind
        yield at + "attn_output.weight", hidden, hidden, kind
        yield at + "ffn_norm.weight", hidden, 0, "f32"
        yield at + "ffn_gate.weight", hidden, inner, kind
        yield at + "ffn_up.weight", hidden, inner, kind
        yield at + "ffn_down.weight", inner, hidden, kind
    yield "output_norm.weight", hidden, 0, "f32"
    yield "output.weight", hidden, vocab, kind


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def header(name, shape):
    hidden, inner, layers, heads, kv_heads, vocab, theta = shape
    whole = lambda value: struct.pack("<II", 4, value)
    real = lambda value: struct.pack("<If", 6, value)
    words = lambda value: struct.pack("<I", 8) + text(value)
    return [
        ("general.architecture", words("llama")),
        ("general.name", words(f"synthetic {name}")),
        ("llama.vocab_size", whole(vocab)),
        ("llama.context_length", whole(CONTEXT)),
        ("llama.embedding_length", whole(hidden)),
        ("llama.block_count", whole(layers)),
        ("llama.feed_forward_length", whole(inner)),
        ("llama.attention.head_count", whole(heads)),
        ("llama.attention.head_count_kv", whole(kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", real(1e-5)),
        ("llama.rope.dimension_count", whole(hidden // heads)),
        ("llama.rope.freq_base", real(theta)),
        ("tokenizer.ggml.model", words("no_vocab")),
    ]


def write(model, out, check=lambda: None):
    """Writes `model` ("llama-2-13b:q4_0"; f16 where no format is given) to the path `out`; returns its bytes. `check`
    is called at every tensor, and may raise."""
    name, _, kind = model.partition(":")
    kind = kind or "f16"
    if name not in SHAPES or kind not in ("f16", "q4_0"):
        raise SystemExit(f"there is no synthetic {model}: {', '.join(SHAPES)}, with :f16 or :q4_0")
    listed, offset = [], 0
    for tensor, cols, rows, of in tensors(SHAPES[name], kind):
        _, elements, block = TYPES[of]
        size = cols * max(rows, 1) // elements * block
        listed.append((tensor, cols, rows, of, offset, size))
        offset += -(-size // ALIGN) * ALIGN
    keys = header(name, SHAPES[name])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(keys))
    for key, value in keys:
        head += text(key) + value
    for tensor, cols, rows, of, at, _ in listed:
        dims = [cols] + ([rows] if rows else [])
        head += text(tensor) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", dim) for dim in dims)
        head += struct.pack("<IQ", TYPES[of][0], at)
    block = noise(kind, 1)
    with open(out, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGN))
        for _, cols, rows, _, _, size in listed:
            check()
            if rows == 0:
                file.write(struct.pack("<f", 1.0) * cols)
            else:
                for _ in range(size // len(block)):
                    file.write(block)
                file.write(block[: size % len(block)])
            file.write(bytes(-size % ALIGN))
        return file.tell()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print(f"{sys.argv[2]}: {write(sys.argv[1], sys.argv[2])} bytes")
