#!/usr/bin/env python3
"""PyTorch as the vendor's ceiling: matmul by cuBLAS, attention by scaled_dot_product_attention, and the copy bandwidth.

usage: torch_peer.py [--out F.json] [--max-seconds 300]

On a CUDA device with f16; without one it runs tiny sizes on the CPU, which only shows that the program works. Times are
device events around replayed graphs of calls, over several sets of inputs in turn so that no cache holds them; the
median of the repetitions.
"""

import argparse
import sys
import time

import common

# (name, columns read, rows written): every linear layer of a model's block, and its vocabulary
LINEARS = {
    "llama-2-7b": [
        ("qkv", 4096, 12288),
        ("o", 4096, 4096),
        ("gate_up", 4096, 22016),
        ("down", 11008, 4096),
        ("logits", 4096, 32000),
    ],
    "llama-2-13b": [
        ("qkv", 5120, 15360),
        ("o", 5120, 5120),
        ("gate_up", 5120, 27648),
        ("down", 13824, 5120),
        ("logits", 5120, 32000),
    ],
    "llama-3.1-8b": [
        ("qkv", 4096, 6144),
        ("o", 4096, 4096),
        ("gate_up", 4096, 28672),
        ("down", 14336, 4096),
        ("logits", 4096, 128256),
    ],
    "qwen3-8b": [
        ("qkv", 4096, 6144),
        ("o", 4096, 4096),
        ("gate_up", 4096, 24576),
        ("down", 12288, 4096),
        ("logits", 4096, 151936),
    ],
}
ROWS = [1, 8, 32, 512, 2048]
HEADS = {"llama-2-13b (MHA)": (40, 40, 128), "llama-3.1-8b (GQA)": (32, 8, 128)}  # heads, kv heads, head_dim
DEPTHS = [1024, 4096, 8192, 16384, 32768, 65536]
PREFILL = [512, 2048, 8192]
CACHE = 512 << 20  # bytes of inputs to turn through, several times any cache
CALLS = 16  # in a graph


class Bench:
    """Times a function over sets of inputs on one device."""

    def __init__(self, torch, tiny, clock):
        self.torch, self.tiny, self.clock = torch, tiny, clock
        self.device = "cpu" if tiny else "cuda"
        self.dtype = torch.float32 if tiny else torch.float16

    def random(self, *shape):
        return self.torch.randn(*shape, device=self.device, dtype=self.dtype) * 0.02

    def sets(self, bytes_of_one):
        """How many sets of inputs make the cache useless."""
        return 1 if self.tiny else max(1, min(16, CACHE // max(bytes_of_one, 1)))

    def milliseconds(self, run, inputs, repetitions=10):
        """Of one call: median, lowest and highest of the repetitions, each of them many calls."""
        self.clock.check()
        if self.tiny:
            times = []
            for index in range(3):
                began = time.perf_counter()
                run(*inputs[index % len(inputs)])
                times.append((time.perf_counter() - began) * 1e3)
        else:
            times = self.replays(run, inputs, repetitions)
        return {"ms": round(common.median(times), 5), "lowest": round(min(times), 5), "highest": round(max(times), 5)}

    def replays(self, run, inputs, repetitions):
        """Times replays of a graph of calls, so that what a launch costs the CPU is left out."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for given in inputs[:3] * 3:
                run(*given)
        torch.cuda.current_stream().wait_stream(side)
        calls = inputs * max(1, CALLS // len(inputs))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for given in calls:
                run(*given)
        graph.replay()
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repetitions)]
        torch.cuda.synchronize()
        for start, end in events:
            start.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / len(calls) for start, end in events]


def rates(timing, read_and_written, operations):
    seconds = timing["ms"] / 1e3
    return {
        **timing,
        "gb_per_s": round(read_and_written / seconds / 1e9, 1),
        "tflop_per_s": round(operations / seconds / 1e12, 2),
    }


def copy(bench, rows):
    """A large device copy, counting bytes read and bytes written."""
    count = 1 << 16 if bench.tiny else 1 << 30
    source, target = bench.random(count), bench.random(count)
    size = source.element_size()
    rows.row(
        kernel="copy",
        bytes=count * size,
        **rates(bench.milliseconds(lambda a, b: b.copy_(a), [(source, target)]), 2 * count * size, 0),
    )


def linears(bench, rows):
    """x @ w.T as a linear layer runs it, and the square product."""

    def one(label, m, k, n, **fields):
        size = bench.random(1).element_size()
        moved = (m * k + k * n + m * n) * size
        inputs = [(bench.random(m, k), bench.random(n, k)) for _ in range(bench.sets(moved))]
        rows.row(
            kernel=label,
            **fields,
            m=m,
            k=k,
            n=n,
            **rates(bench.milliseconds(bench.torch.nn.functional.linear, inputs), moved, 2 * m * k * n),
        )

    side = 64 if bench.tiny else 4096
    one("matmul", side, side, side)
    for model, shapes in LINEARS.items():
        for layer, cols, outs in shapes:
            for count in ROWS[:2] if bench.tiny else ROWS:
                scale = 64 if bench.tiny else 1
                one("linear", count, cols // scale, outs // scale, model=model, layer=layer)
        if bench.tiny:
            break


def attention(bench, rows):
    """One new query over a depth of keys (decode), and causal self-attention of a prompt (prefill)."""
    sdpa = bench.torch.nn.functional.scaled_dot_product_attention
    for model, (heads, kv_heads, dim) in HEADS.items():
        grouped = {"enable_gqa": True} if heads != kv_heads else {}
        for depth in [64, 128] if bench.tiny else DEPTHS:
            size = bench.random(1).element_size()
            moved = 2 * depth * kv_heads * dim * size
            inputs = [
                (
                    bench.random(1, heads, 1, dim),
                    bench.random(1, kv_heads, depth, dim),
                    bench.random(1, kv_heads, depth, dim),
                )
                for _ in range(bench.sets(moved))
            ]
            rows.row(
                kernel="attention decode",
                model=model,
                depth=depth,
                **rates(
                    bench.milliseconds(lambda q, k, v: sdpa(q, k, v, **grouped), inputs), moved, 4 * heads * depth * dim
                ),
            )
        for length in [32] if bench.tiny else PREFILL:
            inputs = [
                (
                    bench.random(1, heads, length, dim),
                    bench.random(1, kv_heads, length, dim),
                    bench.random(1, kv_heads, length, dim),
                )
            ]
            moved = 2 * length * (heads + kv_heads) * dim * bench.random(1).element_size()
            rows.row(
                kernel="attention prefill",
                model=model,
                depth=length,
                **rates(
                    bench.milliseconds(lambda q, k, v: sdpa(q, k, v, is_causal=True, **grouped), inputs),
                    moved,
                    2 * heads * length * (length + 1) * dim,
                ),
            )


def main():
    parser = common.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter), 300
    )
    args = parser.parse_args()
    rows, clock = common.child_rows(), common.Clock(args.max_seconds)
    if rows is None:
        return common.supervise("PyTorch", args, clock)
    rows.begin("importing torch")
    import torch

    tiny = not torch.cuda.is_available()
    rows.facts(
        version=torch.__version__,
        device="CPU, tiny sizes: says nothing about speed" if tiny else torch.cuda.get_device_name(0),
    )
    bench = Bench(torch, tiny, clock)
    for part in (copy, linears, attention):
        rows.begin(part.__name__)
        try:
            part(bench, rows)
        except common.TimeUp:
            rows.failure(part.__name__, f"stopped at the limit of {args.max_seconds:.0f} s")
            break
        except RuntimeError as error:  # CUDA's and the allocator's
            rows.failure(part.__name__, error)
        if not tiny:
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
