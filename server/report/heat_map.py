"""A heat map of expert load over rounds and layers, as plain SVG without scripts."""

from collections.abc import Mapping, Sequence

from server.report.charts import SHAPES

Shares = Sequence[Sequence[float]]
"""By layer, then expert: its share of the layer's token slots."""

MOST_CELLS = 6000
"""Of one drawing; with more, columns are left out, so that the page stays small."""
COLUMNS = {"wide": 60, "narrow": 24}
LEFT, RIGHT, TOP, BOTTOM, GAP = 62, 8, 6, 34, 8
DEAD = "#d55e00"
"""Okabe and Ito's vermilion, against blue for load: told apart with any colour vision."""


def heat_map(shares: Mapping[int, Shares], unit: str) -> str:
    """Returns a figure with a strip a layer, a row an expert, a column a round; dead experts stand out.

    Args:
        shares: Round or step -> the load then.
        unit: What these numbers count: round or step.
    """
    if not shares:
        return ""
    even = "an even share"
    legend = (
        "<figcaption>share of a layer's token slots by expert "
        f'<span><i style="background:{_tint(1.0)}"></i>{even}</span>'
        f'<span><i style="background:{_tint(2.0)}"></i>twice {even} or more</span>'
        f'<span><i style="background:{DEAD}"></i>dead: no token</span></figcaption>'
    )
    return f"<figure>{legend}{''.join(_drawing(kind, shares, unit) for kind in SHAPES)}</figure>"


def _drawing(kind: str, shares: Mapping[int, Shares], unit: str) -> str:
    width = SHAPES[kind][0]
    layers, experts = _shape(shares)
    shown = _thinned(sorted(shares), min(COLUMNS[kind], max(2, MOST_CELLS // max(1, layers * experts))))
    cell_w = (width - LEFT - RIGHT) / max(len(shown), 8)
    cell_h = max(4.0, min(14.0, 320 / max(1, layers * experts)))
    strip = experts * cell_h + GAP
    height = TOP + layers * strip + BOTTOM
    parts = [f'<svg class="{kind}" viewBox="0 0 {width} {height:g}" role="img" aria-label="expert load by {unit}">']
    for layer in range(layers):
        top = TOP + layer * strip
        parts.append(
            f'<text x="{LEFT - 6}" y="{top + experts * cell_h / 2 + 4:.1f}" text-anchor="end">layer {layer}</text>'
        )
        for column, number in enumerate(shown):
            for expert, share in enumerate(shares[number][layer]):
                parts.append(
                    f'<rect x="{LEFT + column * cell_w:.1f}" y="{top + expert * cell_h:.1f}" width="{cell_w:.1f}" '
                    f'height="{cell_h:.1f}" fill="{_colour(share, experts)}"><title>{unit} {number:,}, layer {layer}, '
                    f"expert {expert}: {100 * share:.1f} %</title></rect>"
                )
    every = max(1, -(-len(shown) // (12 if kind == "wide" else 6)))
    for column in range(0, len(shown), every):
        x = LEFT + (column + 0.5) * cell_w
        parts.append(f'<text x="{x:.1f}" y="{height - 20:g}" text-anchor="middle">{shown[column]:,}</text>')
    parts.append(f'<text x="{(LEFT + width) / 2:g}" y="{height - 3:g}" text-anchor="middle">{unit}</text>')
    return "".join([*parts, "</svg>"])


def _shape(shares: Mapping[int, Shares]) -> tuple[int, int]:
    newest = shares[max(shares)]
    return len(newest), max((len(row) for row in newest), default=0)


def _thinned(numbers: list[int], most: int) -> list[int]:
    """Returns at most `most` of some numbers at even distances, the first and the last among them."""
    if len(numbers) <= most:
        return numbers
    return [numbers[round(place * (len(numbers) - 1) / (most - 1))] for place in range(most)]


def _colour(share: float, experts: int) -> str:
    return DEAD if share == 0 else _tint(share * experts)


def _tint(load: float) -> str:
    """Returns a blue, the fuller the more; `load` is 1 for an even share."""
    return f"rgba(0,114,178,{0.06 + 0.94 * min(1.0, load / 2):.2f})"
