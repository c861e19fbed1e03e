#!/usr/bin/env python3
"""llama.cpp's Vulkan backend on the same adapter: its greedy tokens, its milliseconds a token over depth, its longest
context.

usage: llama_cpp.py greedy  --libraries PATH --model F.gguf --cases CASES.jsonl [--max-tokens 64]
       llama_cpp.py bench   --libraries PATH --model F.gguf|synthetic:llama-2-13b[:q4_0] [--depth 1024,…]
                            [--gen 32] [--ragged 512,4096x2]
       llama_cpp.py longest --libraries PATH --model … [--up-to 131072]

PATH is the npm package's .tgz or an unpacked folder of it (tools/peers/README.md). RAGLAN_RUNNER names what it runs
under, as lavapipe's vkrun. Every figure has both llama.cpp's own timing (`reported_…`) and the wall clock's. One JSON
object at the end.
"""

import argparse
import glob
import heapq
import json
import os
import random
import sys
import tempfile
import time

import common
import synthetic_gguf
from llama_api import PACKAGE, VERSION, Context, Failed, Llama, Model

STEP = 1024  # how finely the longest context is looked for, in tokens


def greedy(args, model, rows, clock):
    """A row a case: the greedy tokens, and at each how far the runner-up's logit was."""
    for index, case in enumerate(read_cases(args.cases)):
        ids = case.get("token_ids") or model.tokenize(case["prompt"])
        rows.begin(f"greedy case {index}")
        context = Context(model, len(ids) + args.max_tokens + 1, args.chunk)
        fill(context, ids, 0, clock)
        tokens, margins = [], []
        for _ in range(args.max_tokens):
            clock.check()
            logits = context.logits()
            best, second = heapq.nlargest(2, range(model.vocab_size), key=logits.__getitem__)
            tokens.append(best)
            margins.append(round(logits[best] - logits[second], 5))
            forced = case.get("follow", [])[len(tokens) - 1 : len(tokens)] or [best]
            context.decode([(forced[0], len(ids) + len(tokens) - 1, 0)])
        perf = context.perf()
        rows.row(case=index, prompt_ids=list(ids), tokens=tokens, margins=margins, **reported(perf))
        context.close()


def read_cases(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def reported(perf):
    """llama.cpp's own timings; it counts a batch of one token as generated and any other as prompt."""
    return {
        "reported_prompt_tokens": perf.n_p_eval,
        "reported_prompt_tokens_per_second": round(perf.n_p_eval / max(perf.t_p_eval_ms, 1e-6) * 1000, 2),
        "reported_ms_per_token": round(perf.t_eval_ms / max(perf.n_eval, 1), 4),
        "reported_generated": perf.n_eval,
    }


def fill(context, ids, sequence, clock, start=0):
    """Reads `ids` at positions from `start` on, a chunk at a time."""
    for at in range(0, len(ids), context.chunk):
        clock.check()
        part = ids[at : at + context.chunk]
        context.decode([(token, start + at + index, sequence) for index, token in enumerate(part)])


def bench(args, model, rows, clock):
    """The depth curve in one cache that is filled once, then a ragged batch. Depths that do not fit are failures."""
    rng = random.Random(1)
    any_ids = lambda count: [rng.randrange(model.vocab_size) for _ in range(count)]
    depths = sorted(common.numbers(args.depth))
    context = None
    while context is None:
        longest = depths[-1] + args.gen + 1
        rows.begin("a context", n_ctx=longest)
        try:
            context = Context(model, longest, args.chunk)
        except Failed as error:
            if len(depths) == 1:
                raise
            rows.failure("a context", error, n_ctx=longest, depth=depths.pop())
    context.decode([(1, 0, 0)])  # compiles what a token needs
    fill(context, any_ids(min(context.chunk, depths[-1])), 0, clock, 1)  # and what a prompt needs
    context.api.llama_memory_clear(context.memory, True)
    filled = 0
    for depth in depths:
        rows.begin("depth", depth=depth)
        context.api.llama_perf_context_reset(context.handle)
        began = time.perf_counter()
        added = depth - filled
        fill(context, any_ids(added), 0, clock, filled)
        reading = time.perf_counter() - began
        prompt = context.perf()
        filled = depth
        context.decode([(1, depth, 0)])
        context.api.llama_perf_context_reset(context.handle)
        times = []
        for index in range(1, args.gen):
            clock.check()
            began = time.perf_counter()
            context.decode([(any_ids(1)[0], depth + index, 0)])
            times.append((time.perf_counter() - began) * 1e3)
        perf = context.perf()
        rows.row(
            depth=depth,
            ms_per_token=round(common.median(times), 4),
            lowest=round(min(times), 4),
            highest=round(max(times), 4),
            reported_ms_per_token=round(perf.t_eval_ms / max(perf.n_eval, 1), 4),
            prompt_tokens=added,
            prompt_tokens_per_second=round(added / reading, 2) if added else None,
            reported_prompt_tokens_per_second=round(prompt.n_p_eval / max(prompt.t_p_eval_ms, 1e-6) * 1e3, 2)
            if added
            else None,
        )
        context.api.llama_memory_seq_rm(context.memory, 0, depth, -1)
    context.close()
    if args.ragged:
        ragged(args, model, rows, clock, any_ids)


def ragged(args, model, rows, clock, any_ids):
    lengths = common.numbers(args.ragged)
    rows.begin("ragged", lengths=args.ragged)
    context = Context(model, sum(lengths) + len(lengths) * args.gen, args.chunk, len(lengths))
    for sequence, length in enumerate(lengths):
        fill(context, any_ids(length), sequence, clock)
    times = []
    for index in range(args.gen):
        clock.check()
        began = time.perf_counter()
        context.decode(
            [(any_ids(1)[0], length + index, sequence) for sequence, length in enumerate(lengths)], every=True
        )
        times.append((time.perf_counter() - began) * 1e3)
    step = common.median(times[1:])
    rows.row(
        ragged=args.ragged,
        sequences=len(lengths),
        ms_per_step=round(step, 4),
        tokens_per_second=round(len(lengths) / step * 1e3, 2),
    )
    context.close()


def longest(args, model, rows, clock):
    """Bisects the largest context that is allocated; a length at which a child crashed counts as too long."""
    tried = {
        row["n_ctx"]: row.get("allocated", False)
        for row in rows.earlier
        if row["kind"] in ("row", "failure") and "n_ctx" in row
    }
    low = max([n for n, good in tried.items() if good], default=0)
    high = min([n for n, good in tried.items() if not good], default=args.up_to + STEP)
    trial = args.up_to if high > args.up_to else (low + high) // 2
    while high - low > STEP:
        clock.check()
        trial = max(trial // STEP * STEP, low + STEP)
        rows.begin("a context", n_ctx=trial)
        try:
            context = Context(model, trial, args.chunk)
            context.decode([(1, 0, 0)])
            context.close()
            low = trial
            rows.row(n_ctx=trial, allocated=True)
        except Failed as error:
            high = trial
            rows.failure("a context", error, n_ctx=trial)
        trial = (low + high) // 2
    rows.row(longest_context=low, tried_up_to=args.up_to, ended_by="failure" if high <= args.up_to else "last asked")


def synthetic(model, folder, clock):
    """The path of a synthetic model's file in `folder`: one that is there, else a new one in place of others."""
    path = os.path.join(folder, f"synthetic-{model.replace(':', '-')}.gguf")
    if not os.path.exists(path):
        for other in glob.glob(os.path.join(glob.escape(folder), "synthetic-*.gguf*")):
            os.remove(other)
        began = time.perf_counter()
        try:
            size = synthetic_gguf.write(model, path + ".part", clock.check)
        except common.TimeUp:
            os.remove(path + ".part")
            raise SystemExit(f"the time was over while the file of {model} was written") from None
        os.replace(path + ".part", path)
        print(f"  wrote {size} bytes in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return path


def main():
    parser = common.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter), 420
    )
    parser.add_argument("what", choices=["greedy", "bench", "longest"])
    parser.add_argument("--libraries", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--cases", help="a case a line: prompt or token_ids, and what to follow in place of its own choice"
    )
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--depth", default="1024,4096,16384")
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--ragged")
    parser.add_argument("--up-to", type=int, default=131072)
    parser.add_argument(
        "--chunk", type=int, default=2048, help="tokens of a batch, llama.cpp's -b [default: %(default)s]"
    )
    parser.add_argument("--scratch", help="the folder for a synthetic model's file [default: the system's]")
    parser.add_argument("--keep", action="store_true", help="leave that file there, and take one that is there")
    args = parser.parse_args()
    if args.keep and not args.scratch:
        parser.error("--keep needs --scratch")
    if args.what == "greedy" and not args.cases:
        parser.error("greedy needs --cases")
    rows, clock = common.child_rows(), common.Clock(args.max_seconds)
    if rows is None:
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # what it said, not where its stack was
        runner = os.environ.get("RAGLAN_RUNNER", "")
        if runner:
            os.environ.setdefault(
                "GGML_VK_VISIBLE_DEVICES", "0"
            )  # llama.cpp leaves out a software adapter that is not named
        with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
            if args.model.startswith("synthetic:"):
                folder = args.scratch if args.keep else scratch
                name = args.model.removeprefix("synthetic:")
                os.environ["RAGLAN_PEER_MODEL"] = synthetic(name, folder, clock)
            return common.supervise(
                "llama.cpp, Vulkan", args, clock, runner, restarts=20 if args.what == "longest" else 0
            )
    api = Llama(args.libraries)
    rows.facts(version=VERSION, package=PACKAGE, devices=api.devices(), model=args.model)
    if not any(name.startswith("Vulkan") for name, _ in api.devices()):
        raise SystemExit("llama.cpp found no Vulkan device; its devices: " + json.dumps(api.devices()))
    began = time.perf_counter()
    rows.begin("loading the model")
    try:
        model = Model(api, os.environ.get("RAGLAN_PEER_MODEL", args.model))
        rows.facts(load_seconds=round(time.perf_counter() - began, 2))
        {"greedy": greedy, "bench": bench, "longest": longest}[args.what](args, model, rows, clock)
    except common.TimeUp:
        rows.failure(args.what, f"stopped at the limit of {args.max_seconds:.0f} s")
    except Failed as error:
        rows.failure(args.what, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
