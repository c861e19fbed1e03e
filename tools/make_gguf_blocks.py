"""Writes random blocks of every GGUF format and the numbers that the `gguf` package makes of them.

usage: python tools/make_gguf_blocks.py OUT
needs: numpy, safetensors, gguf; golden.json records their versions.

OUT/golden.safetensors: for each format, `NAME.blocks` (bytes, [blocks, bytes of one]) and `NAME.values` (f32, [blocks, values of one]).
Scales are random finite halves: of the first half of the blocks of any size, subnormal ones among them, of the others as weights have.
"""

import json
import pathlib
import sys
from importlib.metadata import version

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

# The first byte of the scales in a block, and how many.
SCALES = dict(Q8_0=(0, 1), Q4_0=(0, 1), Q4_1=(0, 2), Q5_0=(0, 1), Q5_1=(0, 2), Q4_K=(0, 2), Q5_K=(0, 2), Q6_K=(208, 1))
VALUES = 2048


def main():
    out = pathlib.Path(sys.argv[1])
    rng = numpy.random.default_rng(6)
    tensors = {}
    for name, (at, count) in SCALES.items():
        kind = GGMLQuantizationType[name]
        values, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (VALUES // values, size), dtype=numpy.uint8)
        half = len(blocks) // 2
        wild = rng.integers(0, 0x7C00, (half, count)) | rng.integers(0, 2, (half, count)) << 15
        tame = (rng.uniform(0.002, 0.05, (len(blocks) - half, count)) * rng.choice([-1, 1], (len(blocks) - half, count)))
        scales = numpy.concatenate([wild.astype(numpy.uint16).view(numpy.float16), tame.astype(numpy.float16)])
        blocks[:, at : at + 2 * count] = scales.view(numpy.uint8).reshape(len(blocks), 2 * count)
        tensors[f"{name}.blocks"] = blocks
        with numpy.errstate(over="ignore"):
            tensors[f"{name}.values"] = numpy.stack([dequantize(block, kind) for block in blocks]).astype(numpy.float32)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "golden.safetensors")
    versions = {package: version(package) for package in ["gguf", "numpy"]}
    (out / "golden.json").write_text(json.dumps(versions | dict(command="python tools/make_gguf_blocks.py OUT")) + "\n")


if __name__ == "__main__":
    main()
