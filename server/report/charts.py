"""Line charts and heat tables as plain SVG and HTML, without scripts or outside files."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

SHAPES = {"wide": (760, 300), "narrow": (380, 300)}
"""Width and height of the drawing for screens from 600 pixels on, and for smaller ones; labels keep their size."""
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 34
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#9a7d0a", "#7a7a7a")
"""Okabe and Ito's palette, which readers with any colour vision can tell apart, the yellow and black replaced."""
LONG_WORD = 24
"""Characters of a word, such as a hash, that a table may break on a small screen."""
EMPHASISED = "median"
"""The series that is drawn thicker, in the colour of the text."""

_NUMBER = re.compile(r"[\d,.]+( %| MB)?")
"""A cell that is a number with its unit."""

Series = Mapping[str, Sequence[tuple[float, float]]]


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Returns a colour for every name, so that a node has the same one in every chart."""
    plain = sorted(name for name in set(names) if name != EMPHASISED)
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(plain)} | {EMPHASISED: "currentColor"}


def line_chart(
    series: Series,
    x_label: str,
    y_label: str,
    dashed: Mapping[str, float] | None = None,
    colours: Mapping[str, str] | None = None,
) -> str:
    """Returns a figure with a line a series and, dashed in the colour of its series, a level a name.

    Args:
        series: Points (x, y) by name; points that are not finite are left out.
        x_label: Written below.
        y_label: Written above the legend, for those who do not see the picture too.
        dashed: A horizontal line each, under the name of one of the series.
        colours: By name; None: by the names in this chart.
    """
    lines = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    if not any(lines.values()):
        return "<p>Nothing measured yet.</p>"
    tints = {**colours_of(lines), **(colours or {})}
    drawn = "".join(_drawing(kind, lines, x_label, y_label, dashed or {}, tints) for kind in SHAPES)
    legend = "".join(
        f'<span><i style="background:{tints[name]}"></i>{escape(name)}</span>' for name, line in lines.items() if line
    )
    return f"<figure><figcaption>{escape(y_label)} {legend}</figcaption>{drawn}</figure>"


def _drawing(
    kind: str,
    lines: Series,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float],
    tints: Mapping[str, str],
) -> str:
    width, height = SHAPES[kind]
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line] + list(levels.values())
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    ticks = _ticks(min(ys), max(ys))
    y_low, y_high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (width - LEFT - RIGHT),
            height - BOTTOM - (y - y_low) / (y_high - y_low) * (height - TOP - BOTTOM),
        )

    label = f"{escape(y_label)} by {escape(x_label)}"
    parts = [f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">']
    for tick in ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number in _whole_numbers(x_low, x_high, 12 if kind == "wide" else 6):
        x, y = place(number, y_low)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{number:,}</text>')
    parts.append(f'<text x="{(LEFT + width) / 2}" y="{height - 3}" text-anchor="middle">{escape(x_label)}</text>')
    # The emphasised line is drawn last, on top of the others.
    for name, line in sorted(lines.items(), key=lambda item: item[0] == EMPHASISED):
        colour, thick = tints[name], 3.5 if name == EMPHASISED else 1.8
        if name in levels:
            _, y = place(x_low, levels[name])
            parts.append(
                f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
                f'stroke-dasharray="5 5"><title>{escape(name)}: {levels[name]:.4g}</title></line>'
            )
        placed = [(*place(x, y), x, y) for x, y in line]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        for px, py, x, y in placed:
            title = f"{escape(name)}, {escape(x_label)} {x:,g}: {y:.4g}"
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.2" fill="{colour}"><title>{title}</title></circle>')
    return "".join([*parts, "</svg>"])


def heat_table(rows: Sequence[Sequence[float]], row_label: str, column_label: str) -> str:
    """Returns a table of fractions, each cell tinted by its value relative to an even share of its row."""
    if not rows:
        return "<p>Nothing measured yet.</p>"
    columns = max(len(row) for row in rows)
    head = "".join(f"<th>{column_label} {index}</th>" for index in range(columns))
    body = []
    for number, row in enumerate(rows):
        cells = "".join(
            f'<td class="num" style="background:rgba(0,114,178,{min(1.0, value * len(row) / 2) * 0.7:.2f})">'
            f"{100 * value:.1f} %{' dead' if value == 0 else ''}</td>"
            for value in row
        )
        body.append(f"<tr><th>{row_label} {number}</th>{cells}</tr>")
    return f"<div class=scroll><table><tr><th></th>{head}</tr>{''.join(body)}</table></div>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns an HTML table with every cell escaped; numbers below a head are set to the right. `head` may be empty."""

    def cell(value: object) -> str:
        number = isinstance(value, (int, float)) or (head and isinstance(value, str) and _NUMBER.fullmatch(value))
        kind = ' class="num"' if number else ""
        if isinstance(value, str) and any(len(word) > LONG_WORD for word in value.split()):
            kind = ' class="long"'
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
    step = _round_step((high - low) / 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _whole_numbers(low: float, high: float, most: int) -> list[int]:
    """Returns at most about `most` multiples of a round number between two values."""
    step = max(1, round(_round_step((high - low) / most)))
    return list(range(math.ceil(low / step) * step, math.floor(high) + 1, step))


def _round_step(rough: float) -> float:
    """Returns the smallest of 1, 2 and 5 times a power of ten that is not below `rough`."""
    unit = 10.0 ** math.floor(math.log10(rough))
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
