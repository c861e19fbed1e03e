"""What the archives of a run say, as one page, one JSON file and its plots."""

import json
import os
import re

import dynamic
import figures
import svg
from machine import identity, parse
from run import read_archive

QUOTES = 3 * "'"  # in place of what would end a block of words
WORDS = 1500  # characters of a failure's words that the page shows; the JSON file has all that was kept
ORDER = ["self-test", "kernels", "models", "depth", "ragged", "prefill", "long"]
ORDER += ["peer-llama", "peer-torch", "tune", "dynamic"]
BARS = 80  # of the plot of kernels
HEADER = (
    "adapter",
    "driver",
    "date",
    "command",
    "version",
    "is_software",
)  # of a result: the page has them at its head
ROWS = 150  # of a table; the JSON file has all
# What a plot shows, by how its name ends.
SHOWN = {
    "-depth": "Time a token over context length",
    "-kernels": "Share of the limit by kernel",
    "-dynamic": "Times of other runtimes over raglan's, dynamic shapes",
    "-tune-regret": "Time lost against exhaustive search, shapes in order",
    "-tune-rows": "Time lost against exhaustive search over size",
    "-tune-predicted": "Predicted over measured time",
}
# The columns of rows that have any of these; other rows show all their plain fields.
TEST = [
    "model",
    "test",
    "ms_per_token",
    "ms_per_token_min",
    "ms_per_token_max",
    "tokens_per_s",
    "gb_per_s",
    "tflop_per_s",
    "share_of_read",
    "limit_ms_per_token",
    "time_over_limit",
    "drain_ms_per_token",
    "dispatches_per_step",
    "read_tokens_per_s",
    "read_longest_step_ms",
    "error",
]
KERNEL = [
    "model",
    "rows",
    "depth",
    "op",
    "kernel",
    "shape",
    "us",
    "us_min",
    "us_max",
    "gb_per_s",
    "tflop_per_s",
    "limit_us",
    "share_of_limit",
    "drain_us",
    "error",
]
SCORES = ["of", "space", "shapes", "geometric_mean", "p5", "p1", "worst", "slower_than_default"]
SCORES += ["calibrated", "noise_floor", "portfolio"]
DYNAMIC = ["op", "shape", "tuner", "runtime", "candidate", "us", "us_min", "us_max", "captured", "error"]


def write(paths, results, mixed=False, data=None):
    """Writes `<results>/<adapter>/<date>.…` from every archive in `paths`, folders or files, and where `data` is a folder
    the dataset and the weights into `<data>/<adapter type>/`; 1 where there is no archive, or where they are of several
    adapters, drivers or binaries and not `mixed`."""
    named = archives(paths)
    if not named:
        print(f"gpu-record: no archive of a stage in {', '.join(paths)}")
        return 1
    of = {}
    for path, facts, _ in named:
        of.setdefault(identity(facts.get("adapter"), facts.get("sha256")), []).append(path)
    if len(of) > 1 and not mixed:
        print("gpu-record: these archives are not of one adapter, driver and binary; --mixed puts them in one report:")
        for (adapter, driver, more, sha256), names in of.items():
            who = f"{adapter or 'no adapter'}, driver {driver} {more}".strip()
            print(f"gpu-record:   {who}, binary {sha256[:12]}: {', '.join(names)}")
        return 1
    found = latest(named)
    record = merge(found)
    folder = os.path.join(results, record["folder"])
    os.makedirs(folder, exist_ok=True)
    stem = free_stem(folder, record["date"])
    plots = {
        f"{stem}-{name}.svg": text
        for name, text in (
            ("depth", depth_plot(record)),
            ("kernels", kernel_plot(record)),
            ("dynamic", dynamic_plot(record)),
            *tuning_plots(found),
        )
        if text
    }
    for name, text in {
        **plots,
        f"{stem}.json": json.dumps(record, indent=1) + "\n",
        f"{stem}.md": page(record, plots),
    }.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
        print(f"gpu-record: wrote {os.path.join(folder, name)}")
    return keep_tuning(found, data) if data else 0


def keep_tuning(found, data):
    """Writes the dataset and the weights of the archives to where those that ship are; 1 where there are none."""
    for facts, files in found:
        adapter_type = parse(files.get("evaluate.json", b"").decode("utf-8", "replace")).get("adapter_type")
        dataset, weights = files.get("collect.dataset.parquet"), files.get("train.weights.safetensors")
        if facts["stage"] == "tune" and adapter_type and dataset and weights:
            folder = os.path.join(data, slug(adapter_type))
            os.makedirs(folder, exist_ok=True)
            for name, content in (("dataset.parquet", dataset), ("weights.safetensors", weights)):
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(content)
                print(f"gpu-record: wrote {os.path.join(folder, name)}")
            return 0
    print("gpu-record: no archive has a dataset, weights and their scores")
    return 1


def archives(paths):
    """(path, facts, files) of every archive of a stage."""
    found = []
    for path in paths:
        names = sorted(os.path.join(path, name) for name in os.listdir(path)) if os.path.isdir(path) else [path]
        for name in names:
            files = read_archive(name) if name.endswith(".tar.gz") and os.path.isfile(name) else {}
            facts = parse(files.get("stage.json", b"").decode("utf-8", "replace"))
            if facts.get("stage"):
                found.append((name, facts, files))
    return found


def latest(named):
    """(facts, files) of every stage in order; of two archives of one stage the later."""
    found = {facts["stage"]: (facts, files) for _, facts, files in named}
    return sorted(
        found.values(), key=lambda pair: ORDER.index(pair[0]["stage"]) if pair[0]["stage"] in ORDER else len(ORDER)
    )


def merge(found):
    """One record of all stages: the adapter, and of every step how it ended and what it printed."""
    newest = max((facts for facts, _ in found), key=lambda facts: facts["date"])
    adapter = next((facts["adapter"] for facts, _ in found if facts.get("adapter")), {})
    software = adapter.get("device_type", "cpu") == "cpu"
    stages = []
    for facts, files in found:
        steps = []
        for step in facts["steps"]:
            result = parse(files.get(f"{step['name']}.json", b"").decode("utf-8", "replace"))
            result = result or parse(files.get(f"{step['name']}.tokens.json", b"").decode("utf-8", "replace"))
            steps.append({**step, "result": trimmed(result)})
        stages.append(
            {
                "stage": facts["stage"],
                "date": facts["date"],
                "sha256": facts["sha256"],
                "adapter": (facts.get("adapter") or {}).get("name", ""),
                "steps": steps,
            }
        )
    return {
        "adapter": adapter.get("name", "unknown"),
        "driver": f"{adapter.get('driver', '')} {adapter.get('driver_info', '')}".strip(),
        "folder": "lavapipe" if "llvmpipe" in adapter.get("name", "") else slug(adapter.get("name", "unknown")),
        "date": newest["date"],
        "version": newest["version"],
        "software": software,
        "stages": stages,
    }


def trimmed(result):
    """A result without what a record need not keep: the tests that passed, and its command, which the step has."""
    kept = {key: value for key, value in result.items() if key != "command"}
    # One a shape: the plots show them, the dataset has them.
    if isinstance(kept.get("shapes"), list):
        del kept["shapes"]
    if isinstance(kept.get("tests"), list):
        kept["tests"] = [test for test in kept["tests"] if not test.get("ok")]
    return kept


def slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def free_stem(folder, date):
    """The date, or the date and `-run` where a page of that date was written by hand."""
    by_hand = os.path.exists(os.path.join(folder, f"{date}.md")) and not os.path.exists(
        os.path.join(folder, f"{date}.json")
    )
    return f"{date}-run" if by_hand else date


def results(record):
    """(stage, step, result) of every step that printed an object."""
    return [
        (stage["stage"], step["name"], step["result"])
        for stage in record["stages"]
        for step in stage["steps"]
        if step["result"]
    ]


def depth_plot(record):
    """Milliseconds a token over depth: measured, the limit, and the peers of the same run."""
    title = f"Time a token over context length, {where(record)}"
    return svg.lines(title, "tokens in the context", "ms a token", figures.lines(results(record))[:8])


def kernel_plot(record):
    """Bars of what each kernel reached of its limit."""
    return svg.bars(f"Share of the limit by kernel, {where(record)}", figures.shares(results(record))[:BARS])


def dynamic_plot(record):
    """Times over ours of every shape, by runtime."""
    title = f"Dynamic shapes, {where(record)}"
    return svg.ordered(title, "time over raglan's as predicted", dynamic.panels(results(record)))


def tuning_plots(found):
    """(name, text) of the pictures that `raglan tune evaluate` drew."""
    files = next((files for facts, files in found if facts["stage"] == "tune"), {})
    named = ((name.removeprefix("evaluate.").removesuffix(".svg"), data) for name, data in files.items())
    return [(name, data.decode("utf-8", "replace")) for name, data in named if data.startswith(b"<svg")]


def where(record):
    """The adapter, as a picture that is shown alone must name it."""
    return record["adapter"] + (": says nothing about a GPU" if record["software"] else "")


def page(record, plots):
    driver = record["driver"] or "unknown"
    out = [f"# {record['adapter']}, {record['date']}", ""]
    out += [f"{record['version']}; driver {driver}. Written by `tools/gpu-record report` from one run's archives.", ""]
    if record["software"]:
        out += ["**Software Vulkan: it shows that the commands work. Its times say nothing about a GPU's speed.**", ""]
    out += ["| stage | command | ended | seconds |", "| --- | --- | --- | --- |"]
    for stage in record["stages"]:
        for step in stage["steps"]:
            command = cell(step["command"].replace("{seconds}", "…").replace("{minutes}", "…"))
            ended = {0: "done", "skipped": "skipped"}.get(step["ended"], f"**{step['ended']}**")
            ended = "done, some rows failed" if step.get("some_failed") else ended
            out.append(f"| {stage['stage']} | `{command}` | {ended} | {step['seconds']:.0f} |")
    out.append("")
    if not record["software"]:
        out += ["## Wanted and met", "", "| what | wanted | met |", "| --- | --- | --- |"]
        out += [f"| {what} | {aim} | {met} |" for what, aim, met in figures.wanted(results(record))]
        out.append("")
    for name in plots:
        out += [f"![{next((words for end, words in SHOWN.items() if name.endswith(end + '.svg')), 'Tuning')}]({name})", ""]
    against = figures.compared(results(record))
    settings = [(["setting", "kernel", "µs", "µs as used", "time over that"], against)] if against else []
    for head, rows in settings + figures.beside(results(record)) + dynamic.tables(results(record)):
        out += (
            ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
            + ["| " + " | ".join(row) + " |" for row in rows]
            + [""]
        )
    for stage in record["stages"]:
        out += [f"## {stage['stage']}", ""]
        for step in stage["steps"]:
            out += section(step)
    return "\n".join(out).rstrip() + "\n"


def section(step):
    """A step's words if it failed, and its figures as tables."""
    out = []
    if step["ended"] not in (0, "skipped"):
        out += [f"`{step['name']}` ended with {step['ended']}:", "", *quoted(step["words"])]
    elif step["ended"] == "skipped":
        out += [f"`{step['name']}`: {step['words']}.", ""]
    if step.get("note"):
        out += [f"`{step['name']}` {step['note']}.", ""]
    result = step["result"]
    plain = {key: value for key, value in result.items() if not isinstance(value, (list, dict)) and key not in HEADER}
    if plain:
        out += [f"`{step['name']}`: " + ", ".join(f"{key} {show(value)}" for key, value in plain.items()), ""]
    for key, value in result.items():
        if key in ("methods", "splits") and isinstance(value, dict):
            out += table([{"of": name, **scores} for name, scores in value.items() if isinstance(scores, dict)])
        if key == "kernels" and isinstance(value, dict):
            out += table([{"space": name, **scores} for name, scores in value.items() if isinstance(scores, dict)])
        if isinstance(value, dict) and value and all(not isinstance(inner, (list, dict)) for inner in value.values()):
            out += [f"{key}: " + ", ".join(f"{name} {show(inner)}" for name, inner in value.items()), ""]
        if key == "curves" and isinstance(value, list):
            out += [line for curve in value if isinstance(curve, dict) for line in figures.curve_words(curve)]
            continue
        if key != "ops" and isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            out += table(value) if key != "failures" else failures(value)
    return out


def table(rows):
    """Rows of objects as tables of the fields that are no lists, grouped by which fields they have."""
    out, groups = [], {}
    for row in rows:
        columns = (
            TEST
            if "test" in row
            else SCORES
            if "geometric_mean" in row
            else DYNAMIC
            if "op" in row and "shape" in row and ("tuner" in row or "runtime" in row)
            else KERNEL
            if "op" in row
            else [key for key in row if not isinstance(row[key], (list, dict))]
        )
        groups.setdefault(tuple(columns), []).append(row)
    for columns, group in groups.items():
        columns = [column for column in columns if any(row.get(column) is not None for row in group)]
        if columns:
            out += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
            out += ["| " + " | ".join(cell(show(row.get(column))) for column in columns) + " |" for row in group[:ROWS]]
            out += ["", f"{len(group) - ROWS} more are in the JSON file.", ""] if len(group) > ROWS else [""]
    return out


def failures(rows):
    """What failed, by what it said: its words once, and all that ended with them."""
    said = {}
    for row in rows:
        more = [f"{key} {value}" for key, value in row.items() if key not in ("words", "what")]
        where = ", ".join([str(row.get("what", "")), *more])
        said.setdefault(row.get("words", "").strip(), []).append(where)
    out = []
    for words, wheres in said.items():
        out += [f"Failed: {'; '.join(wheres)}:", "", *quoted(words)]
    return out


def quoted(words):
    return ["```text", words.strip()[-WORDS:].replace("```", QUOTES), "```", ""]


def show(value):
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")
