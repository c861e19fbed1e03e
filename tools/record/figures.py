"""Reads the figures of `raglan bench` and of the peers, and holds them against what is wanted on an H100."""

MATVEC = {"f16": 0.90, "q4_0": 0.80}  # share of the measured read bandwidth, on Llama-2-7B's and 13B's shapes
ATTENTION, ATTENTION_FROM = 0.90, 8192  # the same of decode attention, from this depth on
MATRIX = 110.0  # TFLOP/s of matmul_coop
DEEP = "llama-2-13b"
DECODE = {1024: 1.30, 32768: 1.15}  # time over the limit's; the second holds at the longest context too
MHA, GQA = ("llama-2-7b", "llama-2-13b"), ("llama-3.1-8b", "qwen3-8b")
# Of the tuner's picks on unseen shapes, as shares of exhaustive search.
PICKS = {"geometric_mean": 0.9939, "calibrated": 0.996, "p1": 0.92}
SLOWER = 0.005  # of the shapes that may be over 2 % slower than by the default candidate
# The stage `long`: time over the limit at the deepest, and how deep that is to be.
LONG = {"f16": (1.15, 70000), "int4": (1.20, 280000)}
ROOM, OTHER = 0.98, 300e6  # share of (budget - weights) that keys and values take; bytes of everything else
WATCHDOG = 2000.0  # ms: a driver's watchdog may end a step that takes longer
PREFILL = 70000  # tokens that should be read without the adapter being lost

# The steps that these figures are taken from, and those that are only held against them.
PRODUCTS, DECODE_ATTENTION, SQUARE = "kernels/products", "kernels/attention", "kernels/square"
SETTINGS = {
    "kernels/unchecked": "without the driver's checks",
    "kernels/int8": "with activations in 8 bits",
}


def rows_of(results, *places):
    """(result, row) of every row without an error, of these stages or steps (`kernels/products`)."""
    for stage, step, result in results:
        rows = result.get("rows")
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and not row.get("error") and (stage in places or f"{stage}/{step}" in places):
                yield result, row


def plain(model):
    """A model's name without where it comes from: `llama-2-13b:q4_0`."""
    name = str(model or "").split("/")[-1].removeprefix("synthetic:").split(",")[0].lower()
    return name.removesuffix(":f16")


def curves(results):
    """(who, model) to the points of its depth curve: depth, ms a token, and the limit's where it has one."""
    found = {}
    for result, row in rows_of(results, "depth", "peer-llama", "peer-torch"):
        elsewhere = str(result.get("device", "")).startswith("CPU")
        alone = row.get("batch", 1) == 1 and row.get("kind") != "prefill"
        if alone and not elsewhere and row.get("depth") is not None and row.get("ms_per_token") is not None:
            who = (result.get("peer", "raglan"), plain(row.get("model") or result.get("model")))
            # A depth that was measured again, for another purpose, does not count.
            found.setdefault(who, {}).setdefault(row["depth"], (row["ms_per_token"], row.get("limit_ms_per_token")))
    return {who: [(depth, *of[depth]) for depth in sorted(of)] for who, of in found.items()}


def lines(results):
    """What the plot of the depth curve shows: (label, points, dashed)."""
    series = []
    for (who, model), points in curves(results).items():
        limit = [(depth, least) for depth, _, least in points if least is not None]
        if len(points) > 1:
            series.append((f"{who}, {model}", [(depth, ms) for depth, ms, _ in points], False))
        if len(limit) > 1:
            series.append((f"the limit, {model}", limit, True))
    return series


def beside(results):
    """The depth curves of one model beside each other: a head and rows of cells; none where one alone measured it."""
    tables, of = [], curves(results)
    for model in dict.fromkeys(model for _, model in of):
        whos = [who for who, met in of if met == model]
        if len(whos) > 1:
            at = {who: {depth: ms for depth, ms, _ in of[who, model]} for who in whos}
            depths = sorted({depth for points in at.values() for depth in points})
            cells = [
                [str(depth)] + [f"{at[who][depth]:.3f}" if depth in at[who] else "–" for who in whos]
                for depth in depths
            ]
            tables.append(([f"{model}: depth"] + [f"{who}, ms a token" for who in whos], cells))
    return tables


def shares(results):
    """(label, share of the limit, share of the drain): products of one row and of the most, and decode attention."""
    limited = lambda step: [row for _, row in rows_of(results, step) if row.get("share_of_limit") is not None]
    products = [row for row in limited(PRODUCTS) if row.get("op") == "linear"]
    tallest = max((row.get("rows", 1) for row in products), default=1)
    chosen = []
    for row in products + limited(DECODE_ATTENTION):
        product = row.get("op") == "linear" and row.get("rows", 1) in (1, tallest)
        if product or (row.get("op") == "attention" and row.get("rows", 1) == 1):
            chosen.append(
                (
                    f"{plain(row.get('model'))} {row.get('op')} {row.get('shape', '')}",
                    row["share_of_limit"],
                    min(row.get("drain_us") or 0, row.get("us") or 0) / (row.get("us") or 1),
                )
            )
    return chosen


def compared(results):
    """Rows of cells: the products and attentions of another setting, and their time over that of the same as used."""
    used, out = {}, []
    for _, row in rows_of(results, PRODUCTS, DECODE_ATTENTION):
        if row.get("us"):
            used.setdefault((row.get("model"), row.get("op"), row.get("shape")), row["us"])
    for step, setting in SETTINGS.items():
        for _, row in rows_of(results, step):
            least = used.get((row.get("model"), row.get("op"), row.get("shape")))
            if least and row.get("us") and row.get("op") in ("linear", "attention"):
                name = f"{plain(row.get('model'))} {row['op']} {row.get('shape', '')}"
                out.append([setting, name, f"{row['us']:.1f}", f"{least:.1f}", f"{row['us'] / least:.3f}"])
    return out


def read_share(result, row):
    """What a kernel read and wrote a second, over what the adapter was measured to read."""
    rate = (result.get("rates") or {}).get("read_gb_per_s")
    return row["gb_per_s"] / rate if rate and row.get("gb_per_s") else None


def lowest(results, step, keep):
    """The lowest share of the read bandwidth of the step's kernels that `keep` keeps, in words."""
    met = [
        (share, row)
        for result, row in rows_of(results, step)
        if keep(row) and (share := read_share(result, row)) is not None
    ]
    if not met:
        return "not measured"
    share, row = min(met, key=lambda pair: pair[0])
    return f"{share:.3f} at the lowest of {len(met)}: {plain(row.get('model'))}, {row.get('shape')}"


def wanted(results):
    """(what, wanted, met) of the goals on a GPU, each `not measured` where the run has no figure for it."""
    out = []
    for format_, aim in MATVEC.items():
        names = [name if format_ == "f16" else f"{name}:{format_}" for name in MHA]
        met = lowest(
            results,
            PRODUCTS,
            lambda row: row.get("op") == "linear" and row.get("rows") == 1 and plain(row.get("model")) in names,
        )
        out.append((f"matvec at {format_}, Llama-2-7B and 13B, share of read bandwidth", f"≥ {aim:.2f}", met))
    for label, models in (("MHA", MHA), ("GQA", GQA)):
        met = lowest(
            results,
            DECODE_ATTENTION,
            lambda row: (
                row.get("op") == "attention"
                and row.get("rows") == 1
                and row.get("depth", 0) >= ATTENTION_FROM
                and plain(row.get("model")) in models
            ),
        )
        out.append((f"decode attention from 8K on, {label}, share of read bandwidth", f"≥ {ATTENTION:.2f}", met))
    square = [row for _, row in rows_of(results, SQUARE) if row.get("shape") == "rows 4096, cols 4096, inner 4096"]
    rates = [row["tflop_per_s"] for row in square if "coop" in str(row.get("kernel")) and row.get("tflop_per_s")]
    met = f"{rates[0]:.1f}" if rates else "not measured"
    out.append(("matmul by cooperative matrices, 4096 cubed, TFLOP/s", f"≥ {MATRIX:.0f}", met))
    out += decode(curves(results).get(("raglan", DEEP), []))
    read = [
        (row.get("tokens", 0), row["tokens_per_s"])
        for _, row in rows_of(results, "prefill")
        if row.get("kind") == "prefill" and row.get("tokens_per_s")
    ]
    tokens, rate = max(read, default=(0, 0))
    less = "" if tokens >= PREFILL else "not read; "
    met = f"{less}{tokens:,} read at {rate:.0f} tokens/s" if read else "not measured"
    out.append(("a prompt of 70K tokens, Llama-2-13B f16, no watchdog reset", "read", met))
    out += long(results)
    out += picks(results)
    for result, row in rows_of(results, "peer-llama", "peer-torch"):
        if row.get("longest_context") is not None:
            ended = f" (ended by: {row['ended_by']})" if "ended_by" in row else ""
            out.append(
                (
                    f"longest context of {result.get('peer')}, {plain(result.get('model'))}",
                    "–",
                    f"{row['longest_context']:,} tokens{ended}",
                )
            )
    return out


def long(results):
    """The goals of the longest contexts."""
    out, less = [], {}
    for step, (aim, depth) in LONG.items():
        rows = [row for _, row in rows_of(results, f"long/{step}") if row.get("time_over_limit")]
        row = max(rows, key=lambda row: row.get("depth", 0), default=None)
        name = "weights and KV in f16" if step == "f16" else "int8 weights, int4 KV"
        deepest = row.get("depth", 0) + row.get("tokens", 0) if row else 0
        # What was measured less deep says nothing about the goal.
        less[step] = "" if deepest >= depth else f"{depth:,} not reached; "
        met = "not measured"
        if row:
            met = f"{less[step]}{row['time_over_limit']:.3f} at {deepest:,}, {row['ms_per_token']:.2f} ms"
        out.append((f"Llama-2-13B, {name}, {depth:,} tokens: time over the limit", f"≤ {aim:.2f}", met))
    found = {step: curve for _, step, curve in curve_of(results)}
    room, other = found.get("f16", {}).get("share_of_room"), found.get("f16", {}).get("other_bytes")
    met = "not measured" if room is None else f"{less['f16']}{room:.4f}"
    out.append(("the same in f16, share of (budget − weights) ÷ bytes a token", f"≥ {ROOM:.2f}", met))
    met = "not measured" if other is None else f"{less['f16']}{other / 1e6:.0f}"
    out.append(("all other memory at batch 1, MB", f"≤ {OTHER / 1e6:.0f}", met))
    read = [row for _, row in rows_of(results, "long/read") if row.get("read_longest_step_ms")]
    met = "not measured"
    if read:
        row = read[-1]
        met = f"{row['depth']:,} tokens at {row['read_tokens_per_s']:.0f} a second, {row['read_longest_step_ms']:.0f} ms"
    out.append(("a context that is really read: longest step", f"≤ {WATCHDOG:.0f} ms", met))
    return out


def curve_of(results):
    """(stage, step, curve) of every curve of `bench depth`."""
    return [
        (stage, step, curve)
        for stage, step, result in results
        for curve in (result.get("curves") if isinstance(result.get("curves"), list) else [])
        if isinstance(curve, dict)
    ]


def curve_words(curve):
    """A curve of `bench depth` in a few lines."""
    fit, limit, memory = (curve.get(key) or {} for key in ("fit", "limit_fit", "memory"))
    head = f"{plain(curve.get('model'))}, KV {curve.get('kv_type')}"
    if curve.get("layers") != curve.get("model_layers"):
        head += f", {curve.get('layers')} of {curve.get('model_layers')} layers alone"
    line = lambda of: f"{of['ms']:.3f} ms + {of['us_per_1k']:.2f} µs a 1K tokens" if "ms" in of else "no line"
    words = [f"{head}: time {line(fit)}; limit {line(limit)}"]
    if "r2" in fit:
        cliff = "a cliff" if curve.get("cliff") else "no cliff"
        words.append(f"r² {fit['r2']:.5f}, worst residual {100 * fit['worst_residual']:.1f} % at {fit['worst_depth']:.0f}, {cliff}")
        if curve.get("excess") is not None:
            words[-1] += f": the fastest time is at most {100 * curve['excess']:.1f} % over the line, at {curve['excess_depth']:.0f}"
    if "longest_context" in memory:
        share = curve.get("share_of_room")
        part = "" if share is None else f", {100 * share:.2f} % of what the weights leave"
        words.append(f"longest context {memory['longest_context']:,}{part}; all other memory {curve['other_bytes'] / 1e6:.0f} MB")
    return [f"- {text}" for text in words] + [""]


def picks(results):
    """The goals of the tuner's picks, over all kernels."""
    report = next((result for stage, step, result in results if (stage, step) == ("tune", "evaluate")), {})
    slower = ((report.get("methods") or {}).get("model") or {}).get("slower_than_default")
    met = lambda value: "not measured" if value is None else f"{value:.4f}"
    out = [
        (f"tuner's picks on unseen shapes, share of exhaustive search: {name}", f"≥ {aim}", met(report.get(name)))
        for name, aim in PICKS.items()
    ]
    return out + [("of those shapes, over 2 % slower than by the default candidate", f"≤ {SLOWER}", met(slower))]


def decode(points):
    """The goals of the depth curve: time over the limit at given depths and the longest, and how straight it is."""
    ratio = {depth: ms / least for depth, ms, least in points if least}
    aims = {**DECODE, **({max(ratio): DECODE[32768]} if ratio and max(ratio) > 32768 else {})}
    out = [
        (
            f"Llama-2-13B f16 decode at {depth:,}, time over the limit",
            f"≤ {aim:.2f}",
            f"{ratio[depth]:.3f}" if depth in ratio else "not measured",
        )
        for depth, aim in aims.items()
    ]
    bend = bent([(depth, ms) for depth, ms, _ in points])
    out.append(
        (
            "the same, furthest from a straight line over depth",
            "a straight line",
            f"{100 * bend:.1f} %" if bend is not None else "not measured",
        )
    )
    return out


def bent(points):
    """The largest distance from the least-squares line, as a share of the value there; None below three points."""
    if len(points) < 3:
        return None
    count = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / sum((x - middle_x) ** 2 for x, _ in points)
    return max(abs(y / (middle_y + slope * (x - middle_x)) - 1) for x, y in points)
