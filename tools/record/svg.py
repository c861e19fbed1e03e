"""Three plots as SVG text: lines over an axis that begins at zero, bars of a share of a limit, and ratios in order over a
logarithmic axis."""

import math
from html import escape

COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700", "#57606a"]
GREY, PALE = COLOURS[5], "#d8dee4"
WIDTH = 860


def lines(title, x_name, y_name, series):
    """`series`: (label, [(x, y)…], dashed) each; a dashed line has the colour of the solid one before it, whose points
    are marked. None where there is no point."""
    points = [point for _, of, _ in series for point in of]
    if not points:
        return None
    left, top, right, bottom = 70, 50, WIDTH - 40, 420
    x_most, y_most = nice(max(x for x, _ in points)), nice(max(y for _, y in points))

    def at(x, y):
        return left + (right - left) * x / x_most, bottom - (bottom - top) * y / y_most

    out = [head(480 + 20 * ((len(series) + 1) // 2), title)]
    for part in range(6):
        x, y = x_most * part / 5, y_most * part / 5
        (px, _), (_, py) = at(x, 0), at(0, y)
        out += [path(f"M{left} {py:.1f}H{right}", PALE), text(left - 8, py + 4, number(y), "end")]
        out.append(text(px, bottom + 20, number(x), "middle"))
    out.append(path(f"M{left} {top}V{bottom}H{right}", GREY))
    out += [text((left + right) / 2, bottom + 42, x_name, "middle"), text(left - 50, top - 10, y_name)]
    solid = -1
    for index, (label, of, dashed) in enumerate(series):
        solid += 0 if dashed and solid >= 0 else 1
        colour, placed = COLOURS[solid % len(COLOURS)], [at(x, y) for x, y in sorted(of)]
        more = 'stroke-width="2"' + (' stroke-dasharray="6 4"' if dashed else "")
        out.append(path("M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed), colour, more))
        if not dashed:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in placed]
        x, y = left + (index % 2) * 390, 484 + 20 * (index // 2)
        out += [path(f"M{x} {y - 4}h24", colour, more), text(x + 30, y, label)]
    return "\n".join(out) + "\n</svg>\n"


def bars(title, rows):
    """`rows`: (label, share of the limit, share of the time that is drain) each; the drain is a bar of its own behind
    the first. None where there is no row."""
    if not rows:
        return None
    left, top, step = 400, 76, 20
    wide = (WIDTH - left - 60) / max(1.0, max(share + drain for _, share, drain in rows))
    out = [head(top + step * len(rows) + 20, title)]
    out += [box(20, 36, 14, COLOURS[0]), text(40, 48, "least time, over the time")]
    out += [box(250, 36, 14, GREY), text(270, 48, "wait for the dispatch before, over the time")]
    for index, (label, share, drain) in enumerate(rows):
        y, first, second = top + step * index, max(share, 0) * wide, max(drain, 0) * wide
        out += [text(left - 8, y + 12, label, "end"), box(left, y, first, COLOURS[0])]
        out += [box(left + first, y, second, GREY), text(left + first + second + 6, y + 12, f"{share:.2f}")]
    out.append(path(f"M{left + wide:.1f} {top - 6}v{step * len(rows) + 6}", GREY, 'stroke-dasharray="4 3"'))
    out.append(text(left + wide, top - 10, "the limit", "middle"))
    return "\n".join(out) + "\n</svg>\n"


def ordered(title, y_name, panels):
    """`panels`: (name, [(label, ratios, dashed)…]) each, beside each other. Every line is its ratios from the least to
    the most over an axis from 0 to 1 of them; dashed ones have the colour of the solid one before. None where there is no
    ratio."""
    panels = [(name, series) for name, series in panels if any(ratios for _, ratios, _ in series)]
    if not panels:
        return None
    every = [ratio for _, series in panels for _, ratios, _ in series for ratio in ratios]
    least, most = min([*every, 1.0]), max([*every, 1.0])
    low, high = math.floor(math.log2(least)), max(math.ceil(math.log2(most)), math.floor(math.log2(least)) + 1)
    top, bottom, wide = 70, 420, (WIDTH - 60) / len(panels)
    labels = list(dict.fromkeys((label, dashed) for _, series in panels for label, _, dashed in series))
    out = [head(480 + 20 * ((len(labels) + 1) // 2), title), text(20, 46, y_name)]
    at_y = lambda ratio: bottom - (bottom - top) * (math.log2(ratio) - low) / (high - low)
    colours, solid = {}, -1
    for label, dashed in labels:
        solid += 0 if dashed and solid >= 0 else 1
        more = 'stroke-width="2"' + (' stroke-dasharray="6 4"' if dashed else "")
        colours[label, dashed] = (COLOURS[solid % len(COLOURS)], more)
    for index, (name, series) in enumerate(panels):
        left, right = 60 + wide * index, 60 + wide * (index + 1) - 30
        for power in range(low, high + 1):
            y = at_y(2.0**power)
            out += [path(f"M{left:.1f} {y:.1f}H{right:.1f}", GREY if power == 0 else PALE)]
            out += [text(left - 6, y + 4, f"{2.0**power:g}", "end")] if high - low < 12 or power % 2 == 0 else []
        for fifth in range(6):
            out.append(text(left + (right - left) * fifth / 5, bottom + 20, f"{fifth / 5:g}", "middle"))
        out.append(text((left + right) / 2, bottom + 42, f"{name}: share of the shapes", "middle"))
        for label, ratios, dashed in series:
            share = lambda place, of=len(ratios): left + (right - left) * (place + 0.5) / of
            placed = [(share(place), at_y(ratio)) for place, ratio in enumerate(sorted(ratios))]
            out += [path("M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed), *colours[label, dashed])] if placed else []
    for index, key in enumerate(labels):
        x, y = 70 + (index % 2) * 390, 484 + 20 * (index // 2)
        out += [path(f"M{x} {y - 4}h24", *colours[key]), text(x + 30, y, key[0])]
    return "\n".join(out) + "\n</svg>\n"


def head(height, title):
    look = 'font-family="sans-serif" font-size="13" fill="#24292f"'
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {look}>'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{begin}\n{ground}\n<text x="20" y="22" font-size="16">{escape(title)}</text>'


def path(steps, colour, more=""):
    return f'<path d="{steps}" fill="none" stroke="{colour}" {more}/>'


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x, y, width, colour):
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="14" fill="{colour}"/>'


def nice(most):
    """The next round number: 1, 1.2, 1.5, 2 and so on, times a power of ten."""
    power = 1.0
    while power * 10 <= most:
        power *= 10
    while power > most > 0:
        power /= 10
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return next((power * step for step in steps if power * step >= most), most) or 1.0


def number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:g}"
