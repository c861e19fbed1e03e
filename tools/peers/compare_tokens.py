#!/usr/bin/env python3
"""Greedy tokens of raglan and of llama.cpp's Vulkan backend, for the same token ids, weights and adapter.

usage: compare_tokens.py --raglan BIN --libraries PATH --model F.gguf --cases CASES.jsonl [--max-tokens 32] [--out F]

A case a line: {"prompt": …} or {"token_ids": […]}. llama.cpp tokenises, so both get the same ids. Where tokens differ,
llama.cpp is run again along raglan's tokens: how often its first choice is raglan's then, and how near the two choices
were where they differed. RAGLAN_RUNNER names what both run under. Prints a table; --out writes all of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import common


def llama(args, cases, clock, scratch):
    """llama.cpp's report of the cases."""
    given, out = os.path.join(scratch, "cases.jsonl"), os.path.join(scratch, "llama.json")
    write_lines(given, cases)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llama_cpp.py")
    command = [sys.executable, script, "greedy", "--libraries", args.libraries, "--model", args.model, "--cases", given]
    command += ["--max-tokens", str(args.max_tokens), "--max-seconds", f"{clock.left():.0f}", "--out", out]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    with open(out, encoding="utf-8") as file:
        report = json.load(file)
    if len(report["rows"]) != len(cases):
        raise SystemExit(
            f"llama.cpp answered {len(report['rows'])} of {len(cases)} cases: {json.dumps(report['failures'])}"
        )
    return report


def raglan(args, cases, clock, scratch):
    """raglan's answers to the cases, one after another."""
    given = os.path.join(scratch, "prompts.jsonl")
    write_lines(given, cases)
    command = os.environ.get("RAGLAN_RUNNER", "").split() + [
        args.raglan,
        "generate",
        "--model",
        args.model,
        "--prompts",
        given,
    ]
    command += [
        "--json",
        "--temperature",
        "0",
        "--ignore-eos",
        "--max-tokens",
        str(args.max_tokens),
        "--max-sequences",
        "1",
    ]
    command += ["--max-context", str(max(len(case["token_ids"]) for case in cases) + args.max_tokens + 16)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=clock.left())
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_lines(path, values):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(value) + "\n" for value in values)


def main():
    parser = common.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter), 400
    )
    parser.add_argument("--raglan", required=True)
    parser.add_argument("--libraries", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--max-tokens", type=int, default=32)
    args = parser.parse_args()
    with open(args.cases, encoding="utf-8") as file:
        cases = [json.loads(line) for line in file if line.strip()]
    clock = common.Clock(args.max_seconds)
    with tempfile.TemporaryDirectory() as scratch:
        theirs = llama(args, cases, clock, scratch)
        given = [{"token_ids": row["prompt_ids"]} for row in theirs["rows"]]
        ours = raglan(args, given, clock, scratch)
        differ = [index for index, row in enumerate(theirs["rows"]) if row["tokens"] != ours[index]["token_ids"]]
        followed = {}
        if differ:
            again = [{**given[index], "follow": ours[index]["token_ids"]} for index in differ]
            followed = dict(zip(differ, llama(args, again, clock, scratch)["rows"]))
    rows = []
    for index, row in enumerate(theirs["rows"]):
        answer = ours[index]
        tokens = answer["token_ids"]
        same = next((at for at, (a, b) in enumerate(zip(row["tokens"], tokens)) if a != b), len(tokens))
        along = followed.get(index, row)
        agree = [a == b for a, b in zip(along["tokens"], tokens)]
        rows.append(
            {
                "prompt_tokens": len(row["prompt_ids"]),
                "tokens": len(tokens),
                "equal_from_start": same,
                "margin_there": row["margins"][same] if same < len(row["margins"]) else None,
                "agree_along": sum(agree),
                "margins_where_not": [margin for margin, good in zip(along["margins"], agree) if not good],
                "raglan_ms_per_token": 1000 / answer["timings"]["decode_tokens_per_s"],
                "raglan_timings": answer["timings"],
                "llama_ms_per_token": row["reported_ms_per_token"],
                "llama_prompt_tokens_per_second": row["reported_prompt_tokens_per_second"],
                "raglan_tokens": tokens,
                "llama_tokens": row["tokens"],
            }
        )
    report = {
        "peer": theirs["peer"],
        "version": theirs["version"],
        "devices": theirs["devices"],
        "model": os.path.basename(args.model),
        "rows": rows,
    }
    print(
        "| prompt | tokens | equal from the start | agree along raglan's | margins where not "
        "| raglan ms/token | llama.cpp ms/token |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['prompt_tokens']} | {row['tokens']} | {row['equal_from_start']} | {row['agree_along']} | "
            f"{', '.join(f'{margin:.3f}' for margin in row['margins_where_not']) or '–'} | "
            f"{row['raglan_ms_per_token']:.1f} | {row['llama_ms_per_token']:.1f} |"
        )
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
