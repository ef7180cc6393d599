"""What the drill's cells come to: ratios to the clean run, who was named, which promises were kept."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from scripts.drill.cell import Cell, CellResult, liars_of
from scripts.drill.faults import ABSENT, CLEAN, FAULTS, Kind
from strategies.voting import Rule

RULES: tuple[Rule, ...] = ("majority", "median", "mean")
HARM = 1.02
"""A fault does harm when the plain mean ends this many times above the clean run, or is lost."""

Results = dict[Cell, CellResult]


@dataclass(frozen=True, kw_only=True)
class Row:
    """All seeds of one fault, number of nodes and rule.

    Attributes:
        ratios: Held-out loss of the honest nodes over that of the run it is compared with, a seed; None: no model that
            any honest node could measure came out.
        named: Rounds in which a faulty node lost a block, or its reply, mean over seeds and faulty nodes.
        blocks: Blocks that a faulty node lost so, the least over seeds and faulty nodes.
        honest_blocks: Blocks that an honest node lost, the most over seeds and honest nodes.
        most_named: Whether the faulty nodes lost more than any honest one, in every seed.
    """

    nodes: int
    fault: str
    kind: Kind
    rule: Rule
    ratios: list[float | None]
    ended: bool
    reasons: list[str]
    named: float
    blocks: int
    honest_blocks: int
    most_named: bool

    @property
    def ratio(self) -> float | None:
        """Mean over the seeds; None when a seed was lost."""
        known = [ratio for ratio in self.ratios if ratio is not None]
        return fmean(known) if known and len(known) == len(self.ratios) else None

    @property
    def text(self) -> str:
        """The ratio and its range over the seeds."""
        if not self.ended:
            return "did not end"
        if self.ratio is None:
            return "lost"
        known = [ratio for ratio in self.ratios if ratio is not None]
        spread = f" ({min(known):.3f}-{max(known):.3f})" if len(known) > 1 else ""
        return f"{self.ratio:.3f}{spread}"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A bound, what was measured, and where the worst was."""

    text: str
    limit: float
    worst: float | None
    where: str
    kept: bool


def reference(cell: Cell) -> Cell:
    """Returns the run that a cell is compared with: the mean without faults; of a silent node, without that node."""
    fault = ABSENT.name if FAULTS[cell.fault].kind == "silent" else CLEAN.name
    return Cell(nodes=cell.nodes, fault=fault, rule="mean", seed=cell.seed)


def table(results: Results) -> list[Row]:
    """Returns one row for every fault, number of nodes and rule that was run, in the order of the faults."""
    keys = {(cell.nodes, list(FAULTS).index(cell.fault), RULES.index(cell.rule)) for cell in results}
    rows = []
    for nodes, fault, rule in sorted(keys):
        name = list(FAULTS)[fault]
        cells = [c for c in results if (c.nodes, c.fault, c.rule) == (nodes, name, RULES[rule])]
        rows.append(_row(sorted(cells, key=lambda cell: cell.seed), results))
    return rows


def promises(rows: Sequence[Row]) -> list[Promise]:
    """Returns what is promised about `majority` with one faulty node, and whether it was kept."""
    single = [row for row in rows if row.rule == "majority" and FAULTS[row.fault].liars < 2]
    small = [row for row in single if row.nodes < 7]
    large = [row for row in single if row.nodes >= 7]
    clean = [row for row in single if row.kind == "clean"]
    wrong = [row for row in single if row.kind in ("plain", "silent")]
    bounds = [
        ("without faults, of the mean", 1.01, clean),
        ("plain and silent faults", 1.03, wrong),
        ("adaptive attacks, 3 nodes", 1.15, [row for row in small if row.kind == "adaptive"]),
        ("adaptive attacks, 7 and 9 nodes", 1.10, [row for row in large if row.kind == "adaptive"]),
    ]
    found = [_bound(text, limit, chosen) for text, limit, chosen in bounds if chosen]
    lost = [row for row in rows if not row.ended]
    found.append(Promise(text="every run ends", limit=0, worst=len(lost), where=_where(lost), kept=not lost))
    harmful = {(row.nodes, row.fault) for row in rows if row.rule == "mean" and (row.ratio is None or row.ratio > HARM)}
    hidden = [row for row in single if (row.nodes, row.fault) in harmful and not row.most_named]
    text = "faults that harm the mean where the faulty node is not the one that lost most"
    found.append(Promise(text=text, limit=0, worst=len(hidden), where=_where(hidden), kept=not hidden))
    return found


def payload(results: Results) -> dict[str, Any]:
    """Returns the drill for programs."""
    rows = table(results)
    return {
        "majority_worst": worst(rows, "majority"),
        "median_worst": worst(rows, "median"),
        "mean_worst": worst(rows, "mean"),
        "lost": [f"{row.fault}, {row.nodes} nodes, {row.rule}" for row in rows if row.ratio is None],
        "ended": all(row.ended for row in rows),
        "promises": [asdict(promise) for promise in promises(rows)],
        "cells": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "cpu_seconds": sum(result.seconds for result in results.values()),
    }


def worst(rows: Iterable[Row], rule: Rule) -> float | None:
    """Returns the largest ratio of a rule with one faulty node, among the runs from which a model came out."""
    found = [row.ratio for row in rows if row.rule == rule and FAULTS[row.fault].liars < 2]
    return max((ratio for ratio in found if ratio is not None), default=None)


def markdown(rows: Sequence[Row]) -> list[str]:
    """Returns one table for every number of nodes, and the promises."""
    lines = []
    for nodes in sorted({row.nodes for row in rows}):
        lines += ["", f"## {nodes} nodes", ""]
        lines += ["| fault | majority | median | mean | faulty: rounds, blocks | honest: most blocks |"]
        lines += ["|---|---|---|---|---|---|"]
        for fault in FAULTS:
            found = {row.rule: row for row in rows if (row.nodes, row.fault) == (nodes, fault)}
            if found:
                texts = [found[rule].text if rule in found else "" for rule in RULES]
                voted = found.get("majority")
                named = ["", ""]
                if voted is not None:
                    named[0] = f"{voted.named:.3g}, {voted.blocks}" if FAULTS[fault].liars else ""
                    named[1] = str(voted.honest_blocks)
                lines.append(f"| {' | '.join([fault, *texts, *named])} |")
    lines += ["", "## Promises of `majority`, one faulty node", ""]
    lines += ["| promise | limit | worst | where | |", "|---|---|---|---|---|"]
    for promise in promises(rows):
        value = "lost" if promise.worst is None else f"{promise.worst:.4g}"
        kept = "kept" if promise.kept else "**not kept**"
        lines.append(f"| {promise.text} | {promise.limit:g} | {value} | {promise.where} | {kept} |")
    return lines


def _row(cells: Sequence[Cell], results: Results) -> Row:
    first = cells[0]
    found = [results[cell] for cell in cells]
    liars = liars_of(first)
    named = [result.named.get(name, 0) for result in found for name in liars]
    lost = [result.lost_blocks.get(name, 0) for result in found for name in liars]
    honest = [_most(result, liars) for result in found]
    caught = [min((r.lost_blocks.get(n, 0) for n in liars), default=0) for r in found]
    return Row(
        nodes=first.nodes,
        fault=first.fault,
        kind=FAULTS[first.fault].kind,
        rule=first.rule,
        ratios=[_ratio(results[cell], results.get(reference(cell))) for cell in cells],
        ended=all(result.ended for result in found),
        reasons=sorted({result.reason for result in found if result.reason}),
        named=fmean(named) if named else 0.0,
        blocks=min(lost, default=0),
        honest_blocks=max(honest),
        most_named=all(mine > others for mine, others in zip(caught, honest, strict=True)),
    )


def _ratio(result: CellResult, compared: CellResult | None) -> float | None:
    names = sorted(set(result.losses) & set(compared.losses)) if compared else []
    if not names or compared is None:
        return None
    return fmean(result.losses[name] for name in names) / fmean(compared.losses[name] for name in names)


def _most(result: CellResult, liars: Sequence[str]) -> int:
    return max((blocks for name, blocks in result.lost_blocks.items() if name not in liars), default=0)


def _bound(text: str, limit: float, rows: Sequence[Row]) -> Promise:
    lost = [row for row in rows if row.ratio is None]
    if lost:
        return Promise(text=text, limit=limit, worst=None, where=_where(lost), kept=False)
    value, row = max(((row.ratio or 0.0, row) for row in rows), key=lambda pair: pair[0])
    return Promise(text=text, limit=limit, worst=value, where=_where([row]), kept=value <= limit)


def _where(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.fault}, {row.nodes} nodes" for row in rows)
