"""Two plots as SVG text: lines over an axis that begins at zero, and bars of a share of a limit."""

from html import escape

COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700", "#57606a"]
WIDTH = 860


def lines(title, x_name, y_name, series):
    """`series`: (label, [(x, y)…], dashed) each; a dashed line has the colour of the solid one before it, whose points are marked."""
    points = [point for _, of, _ in series for point in of]
    if not points:
        return None
    left, top, right, bottom = 70, 50, WIDTH - 40, 420
    x_most, y_most = nice(max(x for x, _ in points)), nice(max(y for _, y in points))
    at = lambda x, y: (left + (right - left) * x / x_most, bottom - (bottom - top) * y / y_most)
    out = [head(480 + 20 * ((len(series) + 1) // 2), title)]
    for part in range(6):
        x, y = x_most * part / 5, y_most * part / 5
        (px, _), (_, py) = at(x, 0), at(0, y)
        out.append(f'<path d="M{left} {py:.1f}H{right}" stroke="#d8dee4"/><text x="{left - 8}" y="{py + 4:.1f}" text-anchor="end">{number(y)}</text>')
        out.append(f'<text x="{px:.1f}" y="{bottom + 20}" text-anchor="middle">{number(x)}</text>')
    out.append(f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#57606a"/>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 42}" text-anchor="middle">{escape(x_name)}</text><text x="{left - 50}" y="{top - 10}">{escape(y_name)}</text>')
    solid = -1
    for index, (label, of, dashed) in enumerate(series):
        solid += 0 if dashed and solid >= 0 else 1
        colour, placed = COLOURS[solid % len(COLOURS)], [at(x, y) for x, y in sorted(of)]
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        out.append(f'<path d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in placed)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if not dashed:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in placed]
        x, y = left + (index % 2) * 390, 484 + 20 * (index // 2)
        out.append(f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="2"{dash}/><text x="{x + 30}" y="{y}">{escape(label)}</text>')
    return "\n".join(out) + "\n</svg>\n"


def bars(title, rows):
    """`rows`: (label, share) each, a line at 1.0."""
    if not rows:
        return None
    left, top, step = 400, 60, 20
    wide = (WIDTH - left - 60) / max(1.0, max(share for _, share in rows))
    out = [head(top + step * len(rows) + 20, title)]
    for index, (label, share) in enumerate(rows):
        y = top + step * index
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>'
                   f'<rect x="{left}" y="{y}" width="{max(share, 0) * wide:.1f}" height="14" fill="{COLOURS[0]}"/>'
                   f'<text x="{left + max(share, 0) * wide + 6:.1f}" y="{y + 12}">{share:.2f}</text>')
    out.append(f'<path d="M{left + wide:.1f} {top - 6}v{step * len(rows) + 6}" stroke="#57606a" stroke-dasharray="4 3"/>'
               f'<text x="{left + wide:.1f}" y="{top - 10}" text-anchor="middle">the limit</text>')
    return "\n".join(out) + "\n</svg>\n"


def head(height, title):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#24292f">\n'
            f'<rect width="100%" height="100%" fill="#fff"/>\n<text x="20" y="22" font-size="16">{escape(title)}</text>')


def nice(most):
    """The next round number: 1, 1.2, 1.5, 2 and so on, times a power of ten."""
    power = 1.0
    while power * 10 <= most:
        power *= 10
    while power > most > 0:
        power /= 10
    return next((power * step for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * step >= most), most) or 1.0


def number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:g}"
