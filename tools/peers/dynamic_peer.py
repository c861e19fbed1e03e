#!/usr/bin/env python3
"""Matmul and attention over many dynamic shapes: PyTorch eager and TorchScript, or ONNX Runtime.

usage: dynamic_peer.py torch|onnxruntime --shapes dynamic.json [--out F.json] [--max-seconds 300]

A row a shape and runtime. A batch of unequal contexts is padded to the longest and masked, since none of these takes it
as it is; the mask is made beforehand. `eager`, `torchscript` and `onnxruntime` run the same plain attention (product,
softmax, product), `eager sdpa` scaled_dot_product_attention. Results are held against each other. On a CUDA device with
f16: `us` is of replayed graphs where the runtime can be captured, so that what a launch costs the CPU is left out
(`captured`), else of calls one after another. Without a CUDA device it runs on the CPU, which only shows that the
program works.
"""

import argparse
import json
import math
import sys
import time

import common
import torch_peer

AGREE = 0.02  # that results may differ by, of the largest: these are f16, summed in other orders
REPETITIONS = 7


def read(path):
    """(text, sizes) of every shape of a file: `rows cols inner`, or `lengths rows heads kv_heads dim`."""
    with open(path, encoding="utf-8") as file:
        texts = json.load(file)["shapes"]
    found = []
    for text in texts:
        words = dict(word.split("=") for word in text.split())
        if "lengths" in words:
            heads, kv_heads = (int(part) for part in words["heads"].split("/"))
            lengths = common.numbers(words["lengths"])
            sizes = {"lengths": lengths, "heads": heads, "kv_heads": kv_heads, "dim": int(words["dim"])}
        else:
            sizes = {"cols": int(words["cols"]), "inner": int(words["inner"])}
        found.append((text, {**sizes, "rows": int(words.get("rows", 1))}))
    return found


def plain(torch):
    """The plain modules that TorchScript scripts and eager PyTorch runs."""

    class Linear(torch.nn.Module):
        def forward(self, x, weight):
            return torch.nn.functional.linear(x, weight)

    class Attention(torch.nn.Module):
        """q [batch, kv_heads, group · rows, dim], k and v [batch, kv_heads, keys, dim], mask [batch, 1, …, keys]."""

        def forward(self, q, k, v, mask):
            scores = torch.matmul(q, k.transpose(2, 3)) * (q.size(3) ** -0.5) + mask
            return torch.matmul(torch.softmax(scores, -1), v)

    return Linear(), Attention()


class Inputs:
    """The tensors of a shape, in as many sets as make the cache useless."""

    def __init__(self, bench, sizes):
        self.attends = "lengths" in sizes
        make = (lambda: attention(bench, sizes)) if self.attends else (lambda: linear(bench, sizes))
        first = make()
        used = sum(tensor.numel() * tensor.element_size() for tensor in first)
        self.sets = [first] + [make() for _ in range(bench.sets(used) - 1)]


def linear(bench, sizes):
    return bench.random(sizes["rows"], sizes["inner"]), bench.random(sizes["cols"], sizes["inner"])


def attention(bench, sizes):
    """Contexts padded to the longest; row r of a sequence of n tokens sees the first n - rows + r + 1 keys."""
    torch, lengths, rows = bench.torch, sizes["lengths"], sizes["rows"]
    batch, most, group = len(lengths), max(lengths), sizes["heads"] // sizes["kv_heads"]
    q = bench.random(batch, sizes["kv_heads"], group * rows, sizes["dim"])
    k, v = (bench.random(batch, sizes["kv_heads"], most, sizes["dim"]) for _ in range(2))
    seen = torch.tensor(lengths, device=bench.device)[:, None] - rows + 1 + torch.arange(rows, device=bench.device)
    hidden = torch.arange(most, device=bench.device)[None, None, :] >= seen[:, :, None]
    mask = torch.zeros(batch, rows, most, device=bench.device, dtype=bench.dtype).masked_fill(hidden, -math.inf)
    # Heads of a group are rows one behind the other.
    return q, k, v, mask[:, None].repeat(1, 1, group, 1)


def torch_runtimes(torch):
    """Name to (products, attention) of the runtimes of PyTorch."""
    plain_linear, plain_attention = plain(torch)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return {
        "eager": (plain_linear, plain_attention),
        "eager sdpa": (None, lambda q, k, v, mask: sdpa(q, k, v, attn_mask=mask)),
        "torchscript": (torch.jit.script(plain_linear), torch.jit.script(plain_attention)),
    }


class OnnxRuntime:
    """The same graphs in ONNX Runtime, over the same tensors."""

    def __init__(self, bench):
        import onnxruntime

        self.bench, self.runtime = bench, onnxruntime
        self.provider = "CPUExecutionProvider" if bench.tiny else "CUDAExecutionProvider"
        if self.provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"this onnxruntime {onnxruntime.__version__} has no {self.provider} (onnxruntime-gpu has)")
        self.sessions = {attends: self.session(attends) for attends in (False, True)}
        self.options = onnxruntime.RunOptions()
        if not bench.tiny:
            self.options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def session(self, attends):
        """A session of the graph, whose dims are all dynamic."""
        import onnx

        of = onnx.TensorProto.FLOAT if self.bench.tiny else onnx.TensorProto.FLOAT16
        names = ["q", "k", "v", "mask"] if attends else ["x", "weight"]
        value = lambda name: onnx.helper.make_tensor_value_info(name, of, [None] * (4 if attends else 2))
        node = onnx.helper.make_node
        if attends:
            nodes = [
                node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
                node("MatMul", ["q", "kt"], ["products"]),
                node("Shape", ["q"], ["dim"], start=3, end=4),
                node("Cast", ["dim"], ["size"], to=onnx.TensorProto.FLOAT),
                node("Sqrt", ["size"], ["root"]),
                node("Cast", ["root"], ["scale"], to=of),
                node("Div", ["products", "scale"], ["scores"]),
                node("Add", ["scores", "mask"], ["masked"]),
                node("Softmax", ["masked"], ["weights"], axis=-1),
                node("MatMul", ["weights", "v"], ["out"]),
            ]
        else:
            nodes = [node("Gemm", ["x", "weight"], ["out"], transB=1)]
        graph = onnx.helper.make_graph(nodes, "graph", [value(name) for name in names], [value("out")])
        opset = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
        options = {} if self.bench.tiny else {"user_compute_stream": str(self.bench.torch.cuda.current_stream().cuda_stream)}
        return self.runtime.InferenceSession(model.SerializeToString(), providers=[(self.provider, options)])

    def calls(self, inputs):
        """A call for every set of inputs, with its output; tensors are bound where they lie."""
        session, tiny = self.sessions[inputs.attends], self.bench.tiny
        where = ("cpu" if tiny else "cuda", 0, self.np_type())
        names = [one.name for one in session.get_inputs()]
        calls = []
        for given in inputs.sets:
            binding = session.io_binding()
            for name, tensor in zip(names, given):
                binding.bind_input(name, *where, list(tensor.shape), tensor.data_ptr())
            shape = list(given[0].shape) if inputs.attends else [given[0].shape[0], given[1].shape[0]]
            out = self.bench.torch.empty(shape, device=self.bench.device, dtype=self.bench.dtype)
            binding.bind_output("out", *where, shape, out.data_ptr())
            calls.append((binding, out))
        return lambda binding, out: (session.run_with_iobinding(binding, self.options), out)[1], calls

    def np_type(self):
        import numpy

        return numpy.float32 if self.bench.tiny else numpy.float16


def called(bench, run, inputs):
    """Microseconds of calls one after another, without a graph."""
    torch, count = bench.torch, max(1, torch_peer.CALLS // len(inputs))
    for given in inputs[:3]:
        run(*given)
    times = []
    for _ in range(3 if bench.tiny else REPETITIONS):
        bench.clock.check()
        if bench.tiny:
            began = time.perf_counter()
            run(*inputs[0])
            times.append((time.perf_counter() - began) * 1e6)
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for given in inputs * count:
            run(*given)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / (count * len(inputs)))
    return {"us": common.median(times), "us_min": min(times), "us_max": max(times), "captured": False}


def captured(bench, run, inputs):
    """Microseconds of replayed graphs."""
    met = bench.milliseconds(run, inputs, REPETITIONS)
    return {
        "us": met["ms"] * 1e3, "us_min": met["lowest"] * 1e3, "us_max": met["highest"] * 1e3, "captured": not bench.tiny,
    }  # fmt: skip


def agrees(torch, met, wanted):
    """Nothing, or the words for a result that is another."""
    most = wanted.float().abs().max().item()
    off = (met.float() - wanted.float()).abs().max().item()
    return None if off <= AGREE * most else f"its result is off by {off:.3g} of {most:.3g}"


class Over:
    """Runs the runtimes over the shapes and writes a row for each."""

    def __init__(self, bench, rows):
        self.bench, self.rows = bench, rows
        self.plain = plain(bench.torch)

    def row(self, runtime, text, inputs, run, calls, capture):
        fields = {"op": "attention" if inputs.attends else "linear", "shape": text, "runtime": runtime}
        wanted = self.plain[inputs.attends](*inputs.sets[0])
        wrong = agrees(self.bench.torch, run(*calls[0]), wanted)
        if wrong:
            self.rows.failure(f"{runtime}: {text}", wrong)
            return
        timing = captured(self.bench, run, calls) if capture else called(self.bench, run, calls)
        self.rows.row(**fields, **timing)

    def torch(self, shapes):
        of = torch_runtimes(self.bench.torch)
        for text, sizes in shapes:
            inputs = Inputs(self.bench, sizes)
            for name, runs in of.items():
                run = runs[inputs.attends]
                if run is not None:
                    self.attempt(name, text, inputs, run, inputs.sets, not self.bench.tiny)

    def onnxruntime(self, shapes):
        session = OnnxRuntime(self.bench)
        for text, sizes in shapes:
            inputs = Inputs(self.bench, sizes)
            run, calls = session.calls(inputs)
            self.attempt("onnxruntime", text, inputs, run, calls, False)

    def attempt(self, name, text, *more):
        try:
            with self.bench.torch.inference_mode():
                self.row(name, text, *more)
        except RuntimeError as error:  # CUDA's, the allocator's, ONNX Runtime's
            self.rows.failure(f"{name}: {text}", error)
            if "out of memory" in str(error):
                self.bench.torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["torch", "onnxruntime"])
    parser.add_argument("--shapes", required=True, metavar="F", help="the file of shapes")
    args = common.arguments(parser, 300).parse_args()
    rows, clock = common.child_rows(), common.Clock(args.max_seconds)
    if rows is None:
        return common.supervise("PyTorch" if args.what == "torch" else "ONNX Runtime", args, clock)
    rows.begin(f"importing {args.what}")
    import torch

    versions = {"version": torch.__version__}
    if args.what == "onnxruntime":
        import onnxruntime

        versions = {"version": onnxruntime.__version__, "beside": f"PyTorch {torch.__version__}"}
    tiny = not torch.cuda.is_available()
    device = "CPU: says nothing about speed" if tiny else torch.cuda.get_device_name(0)
    rows.facts(**versions, device=device, shapes=args.shapes.rpartition("/")[2])
    rows.begin(args.what)
    over = Over(torch_peer.Bench(torch, tiny, clock), rows)
    try:
        getattr(over, args.what)(read(args.shapes))
    except common.TimeUp:
        rows.failure(args.what, f"stopped at the limit of {args.max_seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
