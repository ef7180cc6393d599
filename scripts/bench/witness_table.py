"""What the cells of the witness benchmark come to: ratios, who was convicted, which promises were kept."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

STRIKES = 3
"""Rounds in a row after which the run would take a node's seat, `reputation.strikes`."""

LISTED = ("sign", "sign_x0.3", "sign_x3", "x100", "nan", "replay", "stale", "ascent", "inner_product", "a_little")
"""Attacks of one liar that promises are made about."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run. `losses`: domain -> held-out loss; `rounds`: what happened in each."""

    nodes: int
    seed: int
    rule: str
    attack: str
    liars: list[str]
    absent: bool
    losses: dict[str, float]
    rounds: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """All seeds and single liars of one rule and attack.

    Attributes:
        ratios: Mean loss over the domains, over that of the run it is compared with, a run.
        domains: The worst domain's ratio, a run.
        named: Rounds in which a liar was convicted (`witness`) or stood alone (`graph`), mean over the runs.
        struck: Single experts of a liar that were struck, mean over the runs.
        honest: Rounds in which an honest node was convicted, or stood alone, the most of any run.
        quarantined: Runs in which an honest node would have lost its seat.
    """

    nodes: int
    liars: int
    rule: str
    attack: str
    ratios: list[float]
    domains: list[float]
    named: float
    struck: float
    honest: int
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A bound, what was measured, and where."""

    text: str
    limit: float
    worst: float
    where: str
    kept: bool


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Returns one row for every rule, attack, number of nodes and of liars, whatever came first."""
    groups: dict[tuple[int, int, str, str], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.nodes, len(cell.liars), cell.seed, cell.liars)):
        if not cell.absent and (cell.rule, cell.attack) != ("mean", "none"):
            groups.setdefault((cell.nodes, len(cell.liars), cell.rule, cell.attack), []).append(cell)
    return [_row(group, cells) for group in groups.values()]


def promises(found: Sequence[Row]) -> list[Promise]:
    """Returns what is promised about one liar and about none, and whether it was kept."""
    made = []
    for rule, clean, domain, attacked in (("witness", 1.005, 1.01, 1.02), ("graph", 1.01, 1.03, 1.08)):
        mine = [row for row in found if row.rule == rule and row.liars < 2]
        none = [row for row in mine if row.attack == "none"]
        lies = [row for row in mine if row.attack in LISTED]
        made += _worst(f"{rule}, no fault: loss over that of the mean", clean, none, "ratios")
        made += _worst(f"{rule}, no fault: the worst domain", domain, none, "domains")
        made += _worst(f"{rule}, one liar: loss over that without the node", attacked, lies, "ratios")
        lost = [row for row in mine if row.quarantined]
        if mine:
            text = f"{rule}: runs in which an honest node loses its seat"
            made.append(Promise(text=text, limit=0, worst=len(lost), where=_where(lost), kept=not lost))
    return made


def payload(cells: Sequence[Cell]) -> dict[str, Any]:
    """Returns the benchmark for programs."""
    found = rows(cells)
    return {"promises": [asdict(promise) for promise in promises(found)], "rows": [asdict(row) for row in found]}


def markdown(cells: Sequence[Cell], head: Sequence[str]) -> list[str]:
    """Returns the table, with `head` above it."""
    found = rows(cells)
    lines = ["# Votes among nodes whose texts differ", "", "Written by `trfmoe bench witness`.", ""]
    lines += [part + "  " for part in head]
    lines += [
        "",
        "Held-out loss, mean over the domains, as a multiple of that of the plain mean (no fault) or of the run",
        "without the liars: mean and range over the seeds, and in brackets the worst domain of any run. `named`:",
        "rounds of a run in which a liar was convicted or stood alone, and single experts of it that were struck.",
        "`honest`: the most rounds of any run in which an honest node was convicted or stood alone.",
    ]
    for nodes in sorted({row.nodes for row in found}):
        for liars in sorted({row.liars for row in found if row.nodes == nodes and row.attack != "none"} or {0}):
            title = f"## {nodes} nodes" + (f", {liars} liars at once" if liars > 1 else "")
            here = [row for row in found if row.nodes == nodes and row.liars in ({0, 1} if liars < 2 else {liars})]
            rules = sorted({row.rule for row in here}, key=["witness", "graph", "mean"].index)
            lines += ["", title, "", "| attack | " + " | ".join(f"{r} | named | honest" for r in rules) + " |"]
            lines += ["|---" * (1 + 3 * len(rules)) + "|"]
            for attack in dict.fromkeys(row.attack for row in here):
                parts = [attack]
                for rule in rules:
                    parts += _shown(next((r for r in here if (r.rule, r.attack) == (rule, attack)), None))
                lines.append(f"| {' | '.join(parts)} |")
    lines += ["", "## Promises", "", "| promise | limit | worst | where | |", "|---|---|---|---|---|"]
    for promise in promises(found):
        kept = "kept" if promise.kept else "**not kept**"
        lines.append(f"| {promise.text} | {promise.limit:g} | {promise.worst:.4g} | {promise.where} | {kept} |")
    return lines


def line(cell: Cell, cells: Sequence[Cell]) -> str:
    """Returns one line about a cell; `cells` holds the one that it is compared with."""
    what = f"{cell.nodes} nodes, seed {cell.seed}, {'+'.join(cell.liars) or 'nobody'} "
    what += "absent" if cell.absent else f"lies by {cell.attack}" if cell.liars else "lies"
    if cell.absent or (cell.rule, cell.attack) == ("mean", "none"):
        return f"{what}, {cell.rule}: loss {fmean(cell.losses.values()):.4f} ({cell.seconds:.0f} s)"
    row = _row([cell], cells)
    named = f"named in {row.named:g} rounds, honest in {row.honest}"
    return (
        f"{what}, {cell.rule}: {row.ratios[0]:.4f}, worst domain {row.domains[0]:.4f}, {named} ({cell.seconds:.0f} s)"
    )


def _row(group: Sequence[Cell], cells: Sequence[Cell]) -> Row:
    ratios, domains = [], []
    for cell in group:
        other = _compared(cell, cells)
        ratios.append(fmean(cell.losses.values()) / fmean(other.losses.values()))
        domains.append(max(loss / other.losses[name] for name, loss in cell.losses.items()))
    honest = [[set(event["bad"]) - set(cell.liars) for event in cell.rounds] for cell in group]
    struck = [sum(name in cell.liars for r in cell.rounds for name in r.get("struck", {}).values()) for cell in group]
    return Row(
        nodes=group[0].nodes,
        liars=len(group[0].liars),
        rule=group[0].rule,
        attack=group[0].attack,
        ratios=ratios,
        domains=domains,
        named=fmean(sum(bool(set(e["bad"]) & set(cell.liars)) for e in cell.rounds) for cell in group),
        struck=fmean(struck),
        honest=max(sum(bool(names) for names in run) for run in honest),
        quarantined=sum(_longest(run) >= STRIKES for run in honest),
    )


def _compared(cell: Cell, cells: Sequence[Cell]) -> Cell:
    wanted = (cell.nodes, cell.seed, "mean", "none", cell.liars, bool(cell.liars))
    return next(c for c in cells if (c.nodes, c.seed, c.rule, c.attack, c.liars, c.absent) == wanted)


def _longest(run: Sequence[set[str]]) -> int:
    """The most rounds in a row in which one node was bad."""
    longest, streaks = 0, dict[str, int]()
    for names in run:
        streaks = {name: streaks.get(name, 0) + 1 for name in names}
        longest = max([longest, *streaks.values()])
    return longest


def _shown(row: Row | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    spread = f" ({min(row.ratios):.3f}-{max(row.ratios):.3f})" if len(row.ratios) > 1 else ""
    named = "" if not row.liars else f"{row.named:.3g}" + (f" + {row.struck:.3g}" if row.struck else "")
    return [f"{fmean(row.ratios):.3f}{spread} [{max(row.domains):.3f}]", named, str(row.honest)]


def _worst(text: str, limit: float, found: Sequence[Row], field: str) -> list[Promise]:
    if not found:
        return []
    value, row = max(((max(getattr(row, field)), row) for row in found), key=lambda pair: pair[0])
    return [Promise(text=text, limit=limit, worst=value, where=_where([row]), kept=value <= limit)]


def _where(found: Sequence[Row]) -> str:
    return "; ".join(f"{row.attack}, {row.nodes} nodes" for row in found)
