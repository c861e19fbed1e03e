#!/usr/bin/env python3
"""Writes dynamic.json and dynamic_small.json beside this file: the seeded shapes over which matmul and attention are
compared, ours and the peers', as `raglan tune show` reads a shape.

usage: dynamic_shapes.py [--check]    --check writes nothing and fails where the files are not what it would write

Rows of products and lengths of contexts are log-uniform, so that hardly one is a power of two; half of the matrices are
known models', half of no model. Random numbers are `random.random()` alone, the same in every version of Python.
"""

import argparse
import json
import math
import os
import random
import sys

from torch_peer import HEADS, LINEARS

SEED = 20261122
MODELS = ["llama-2-7b", "llama-2-13b", "llama-3.1-8b", "qwen3-8b"]


class Sizes:
    """How many shapes, and between what their sizes lie."""

    def __init__(self, products, attentions, rows, side, sequences, length, tokens):
        self.products, self.attentions, self.rows, self.side = products, attentions, rows, side
        self.sequences, self.length, self.tokens = sequences, length, tokens


# Padded to the longest, as a peer without ragged batches takes it, a batch of `tokens` fits an 80 GB card.
FULL = Sizes(144, 96, 4096, (512, 16384), 64, (64, 32768), 262144)
SMALL = Sizes(16, 8, 64, (64, 512), 4, (16, 512), 2048)


def log_uniform(of, least, most):
    """A whole number from `least` to `most`, as often in each octave."""
    return min(most, int(math.exp(math.log(least) + of.random() * math.log((most + 1) / least))))


def one_of(of, values):
    return values[int(of.random() * len(values))]


def product(of, sizes, index):
    """Every second matrix is a known model's, where those are not too large."""
    if index % 2 == 0 and sizes is FULL:
        _, inner, cols = one_of(of, LINEARS[one_of(of, MODELS)])
    else:
        cols, inner = (64 * max(1, log_uniform(of, *sizes.side) // 64) for _ in range(2))
    return f"rows={log_uniform(of, 1, sizes.rows)} cols={cols} inner={inner} format=f16"


def attention(of, sizes, index):
    """Three of four read one new token of each of a batch of unequal contexts; one reads a part of a prompt or of a few."""
    heads, kv_heads, dim = one_of(of, list(HEADS.values())) if sizes is FULL else one_of(of, [(4, 4, 64), (8, 2, 64)])
    prompt = index % 4 == 3
    sequences = log_uniform(of, 1, 4 if prompt else sizes.sequences)
    rows = log_uniform(of, 2, sizes.length[0] * 8 // sequences) if prompt else 1
    # A prompt's scores are a matrix where the peer is plain: its context is shorter.
    longest = min(sizes.length[1] // 4 if prompt else sizes.length[1], sizes.tokens // sequences)
    lengths = [log_uniform(of, max(rows, sizes.length[0]), longest) for _ in range(sequences)]
    return f"lengths={','.join(map(str, lengths))} rows={rows} heads={heads}/{kv_heads} dim={dim}"


def shapes(sizes):
    """Distinct shapes, products and attentions mixed, so that what a time limit cuts off is of both."""
    of, found = random.Random(SEED), {product: [], attention: []}
    for make, count in ((product, sizes.products), (attention, sizes.attentions)):
        while len(found[make]) < count:
            shape = make(of, sizes, len(found[make]))
            if shape not in found[make]:
                found[make].append(shape)
    placed = [(index / len(many), shape) for many in found.values() for index, shape in enumerate(many)]
    return [shape for _, shape in sorted(placed, key=lambda pair: pair[0])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for name, sizes in (("dynamic.json", FULL), ("dynamic_small.json", SMALL)):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
        text = json.dumps({"seed": SEED, "shapes": shapes(sizes)}, indent=0) + "\n"
        if args.check:
            with open(path, encoding="utf-8") as file:
                if file.read() != text:
                    print(f"{path} is not what this program writes")
                    return 1
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
