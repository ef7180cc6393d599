"""Line charts and heat tables as plain SVG and HTML, without scripts or outside files."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 34
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#ff9da7", "#8a8a8a")

Series = Mapping[str, Sequence[tuple[float, float]]]


def line_chart(series: Series, x_label: str, y_label: str, dashed: Mapping[str, float] | None = None) -> str:
    """Returns an SVG figure with a line a series and, dashed in the colour of its series, a level a name.

    Args:
        series: Points (x, y) by name; points that are not finite are left out.
        x_label: Written below.
        y_label: Written above the legend, for those who do not see the picture too.
        dashed: A horizontal line each, under the name of one of the series.
    """
    levels = dashed or {}
    lines = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    points = [point for line in lines.values() for point in line]
    if not points:
        return "<p>Nothing measured yet.</p>"
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + list(levels.values())
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    ticks = _ticks(min(ys), max(ys))
    y_low, y_high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">']
    for tick in ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number in _whole_numbers(x_low, x_high):
        x, y = place(number, y_low)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{number}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>')
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        if name in levels:
            _, y = place(x_low, levels[name])
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
                f'stroke-dasharray="5 5"><title>{escape(name)}: {levels[name]:.4g}</title></line>'
            )
        placed = [(*place(x, y), x, y) for x, y in line]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for px, py, x, y in placed:
            title = f"{escape(name)}, {escape(x_label)} {x:g}: {y:.4g}"
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"><title>{title}</title></circle>')
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{COLOURS[index % len(COLOURS)]}"></i>{escape(name)}</span>'
        for index, name in enumerate(lines)
    )
    return f"<figure><figcaption>{escape(y_label)} {legend}</figcaption>{''.join(parts)}</figure>"


def heat_table(rows: Sequence[Sequence[float]], row_label: str, column_label: str) -> str:
    """Returns a table of fractions, each cell tinted by its value relative to an even share of its row."""
    if not rows:
        return "<p>Nothing measured yet.</p>"
    columns = max(len(row) for row in rows)
    head = "".join(f"<th>{column_label} {index}</th>" for index in range(columns))
    body = []
    for number, row in enumerate(rows):
        cells = "".join(
            f'<td class="num" style="background:rgba(78,121,167,{min(1.0, value * len(row) / 2) * 0.7:.2f})">'
            f"{100 * value:.1f} %{' dead' if value == 0 else ''}</td>"
            for value in row
        )
        body.append(f"<tr><th>{row_label} {number}</th>{cells}</tr>")
    return f"<div class=scroll><table><tr><th></th>{head}</tr>{''.join(body)}</table></div>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns an HTML table with every cell escaped; numbers are set to the right. `head` may be empty."""

    def cell(value: object) -> str:
        kind = ' class="num"' if isinstance(value, (int, float)) else ""
        return f"<td{kind}>{escape(_shown(value))}</td>"

    body = "".join("<tr>" + "".join(cell(value) for value in row) + "</tr>" for row in rows)
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    top = f"<tr>{titles}</tr>" if head else ""
    return f"<div class=scroll><table>{top}{body}</table></div>"


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    # Four digits, and never fewer for a value that happens to be round; large ones as people write them.
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def _ticks(low: float, high: float) -> list[float]:
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _whole_numbers(low: float, high: float) -> list[int]:
    step = max(1, math.ceil((high - low) / 12))
    return list(range(math.ceil(low), math.floor(high) + 1, step))
