"""The comparison over dynamic shapes: raglan's schedules beside each other and beside the peers' runtimes."""

import math

from figures import rows_of

MODES = ["default", "predict", "exhaustive"]
OPS = [("linear", "matmul"), ("attention", "attention")]


def times(results):
    """op to who to shape to microseconds: `raglan, <mode>` of the schedules, and every runtime of the peers. A peer
    that ran on the CPU is left out where raglan did not."""
    found = {op: {} for op, _ in OPS}
    of = list(rows_of(results, "dynamic"))
    is_software = all(result.get("is_software", True) for result, row in of if row.get("tuner"))
    for result, row in of:
        if str(result.get("device", "")).startswith("CPU") and not is_software:
            continue
        who = f"raglan, {row['tuner']}" if row.get("tuner") else row.get("runtime")
        if row.get("op") in found and who and row.get("us"):
            found[row["op"]].setdefault(who, {})[row.get("shape")] = row["us"]
    return found


def ratios(of, who, over):
    """The time of `who` over that of `over` on every shape that both have."""
    ours = of.get(over, {})
    return [us / ours[shape] for shape, us in of.get(who, {}).items() if shape in ours]


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def tables(results):
    """A table of peers' times over ours, and one of our schedules' over the exhaustive one's: heads and rows of cells."""
    peers, ours = [], []
    for op, name in OPS:
        of = times(results)[op]
        for who in of:
            if who.startswith("raglan, "):
                met = ratios(of, who, "raglan, exhaustive")
                if met and who != "raglan, exhaustive":
                    cells = [geometric_mean(met), percentile(met, 0.95), percentile(met, 0.99), max(met)]
                    ours.append([name, who, str(len(met)), *[f"{cell:.3f}" for cell in cells]])
                continue
            means = [ratios(of, who, f"raglan, {mode}") for mode in MODES]
            if any(means):
                chosen = means[1] or next(met for met in means if met)
                faster = sum(ratio > 1 for ratio in chosen) / len(chosen)
                cells = [f"{geometric_mean(met):.3f}" if met else "–" for met in means]
                spread = [percentile(chosen, 0.05), percentile(chosen, 0.5), percentile(chosen, 0.95)]
                row = [name, who, str(len(chosen)), *cells, f"{faster:.0%}", *[f"{value:.3f}" for value in spread]]
                peers.append(row)
    head = ["", "its time over raglan's", "shapes", *[f"{mode}: geometric mean" for mode in MODES]]
    head += ["faster by predict", "5th percentile", "median", "95th percentile"]
    more = ["", "its time over exhaustive's", "shapes", "geometric mean", "95th percentile", "99th percentile", "most"]
    return [(names, rows) for names, rows in ((head, peers), (more, ours)) if rows]


def panels(results):
    """What the plot shows: of matmul and attention every peer's time over ours as predicted, and our default's over it."""
    out = []
    for op, name in OPS:
        of = times(results)[op]
        base = "raglan, predict" if "raglan, predict" in of else "raglan, default"
        series = [(who, ratios(of, who, base), False) for who in of if who != base]
        out.append((name, [line for line in series if line[1]]))
    return out
