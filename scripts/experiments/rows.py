"""Compares the results of cells, makes the rows of the results table, and checks the promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scripts.experiments.cell import Cell, Result

STRIKES = 3
"""Rounds in a row of standing badly after which a run takes a node's seats: the default of `reputation.strikes`."""

Results = Mapping[Cell, Result]


@dataclass(frozen=True, kw_only=True)
class Row:
    """All seeds and all choices of attackers of one fault, rule, number of nodes and setting.

    Attributes:
        attackers: Number of faulty nodes.
        ratios: Mean loss over that of the cell it is compared with, a run; None: no model came out that could be
            measured.
        worst_ratios: The same of the one loss that rose most.
        ended: Whether every run came to its end.
        reasons: Why runs did not.
        named: Rounds in which a faulty node was blamed, mean over runs and faulty nodes.
        any_named: Rounds in which at least one faulty node was blamed, mean over runs.
        struck: Single experts of faulty nodes that were struck out, mean over runs.
        blocks: Blocks that a faulty node lost, the least over runs and faulty nodes.
        honest_blocks: Blocks that an honest node lost, the most over runs and honest nodes.
        honest_named: Rounds in which an honest node was blamed, the most of any run.
        quarantined: Runs in which an honest node would have lost its seats.
        most_lost: Whether every faulty node lost more blocks than any honest one, in every run.
    """

    nodes: int
    attackers: int
    fault: str
    rule: str
    setting: str
    ratios: list[float | None]
    worst_ratios: list[float | None]
    ended: bool
    reasons: list[str]
    named: float
    any_named: float
    struck: float
    blocks: int
    honest_blocks: int
    honest_named: int
    quarantined: int
    most_lost: bool

    @property
    def label(self) -> str:
        """The fault, and how many play it if that is more than one."""
        return f"{self.fault} by {self.attackers}" if self.attackers > 1 else self.fault

    @property
    def ratio(self) -> float | None:
        """Mean over the runs; None when one was lost."""
        return _mean(self.ratios)

    @property
    def highest(self) -> float | None:
        """The largest ratio of any run; None when one was lost."""
        return _highest(self.ratios)

    @property
    def worst(self) -> float | None:
        """The largest ratio of any single loss in any run; None when a run was lost."""
        return _highest(self.worst_ratios)

    @property
    def text(self) -> str:
        """The ratio and its range over the runs."""
        if not self.ended:
            return "did not end"
        if self.ratio is None:
            return "lost"
        known = [ratio for ratio in self.ratios if ratio is not None]
        spread = f" ({min(known):.3f}-{max(known):.3f})" if len(known) > 1 else ""
        return f"{self.ratio:.3f}{spread}"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A limit, what was measured, and where the worst was; `worst` is None where no model came out."""

    text: str
    limit: float
    worst: float | None
    where: str
    kept: bool


def make_rows(
    results: Results,
    reference: Callable[[Cell], Cell],
    order: Sequence[str],
    score: Callable[[Sequence[float]], float] = fmean,
) -> list[Row]:
    """Returns one row for every fault, rule, number of nodes, of attackers and setting.

    Args:
        results: All results, those that others are compared with among them.
        reference: Returns the cell that a cell is compared with.
        order: Names of faults, rules and settings in the order of the table.
        score: Sums the losses of a run up.
    """
    groups: dict[tuple[int, int, str, str, str], list[Cell]] = {}
    for cell in sorted(results, key=lambda cell: (cell.seed, cell.attackers)):
        key = (cell.nodes, len(cell.attackers), cell.fault, cell.rule, cell.setting)
        groups.setdefault(key, []).append(cell)
    keys = sorted(groups, key=lambda key: (*key[:2], *(order.index(name) if name in order else -1 for name in key[2:])))
    return [_row(groups[key], results, reference, score) for key in keys]


def at_most(text: str, limit: float, rows: Sequence[Row], value: Callable[[Row], float | None]) -> list[Promise]:
    """Returns the promise that no row's value exceeds a limit; no promise if there are no rows.

    Args:
        text: What is promised.
        limit: The largest value that keeps it.
        rows: The rows that it is about.
        value: Of a row; None: no model came out, which breaks the promise.
    """
    if not rows:
        return []
    lost = [row for row in rows if value(row) is None]
    if lost:
        return [Promise(text=text, limit=limit, worst=None, where=_where(lost), kept=False)]
    worst, row = max(((value(row) or 0.0, row) for row in rows), key=lambda pair: pair[0])
    return [Promise(text=text, limit=limit, worst=worst, where=_where([row]), kept=worst <= limit)]


def none_of(text: str, exceptions: Sequence[Row]) -> Promise:
    """Returns the promise that no row is an exception."""
    return Promise(text=text, limit=0, worst=len(exceptions), where=_where(exceptions), kept=not exceptions)


def promise_table(promises: Sequence[Promise]) -> list[str]:
    """Returns the promises as Markdown."""
    lines = ["| promise | limit | worst | where | |", "|---|---|---|---|---|"]
    for promise in promises:
        worst = "lost" if promise.worst is None else f"{promise.worst:.4g}"
        kept = "kept" if promise.kept else "**not kept**"
        lines.append(f"| {promise.text} | {promise.limit:g} | {worst} | {promise.where} | {kept} |")
    return lines


def _row(
    cells: Sequence[Cell],
    results: Results,
    reference: Callable[[Cell], Cell],
    score: Callable[[Sequence[float]], float],
) -> Row:
    first, runs = cells[0], [results[cell] for cell in cells]
    pairs = [(results[cell], results.get(reference(cell))) for cell in cells]
    named = [sum(name in r.blamed for r in run.rounds) for run in runs for name in run.cell.attackers]
    any_named = [sum(bool(set(r.blamed) & set(run.cell.attackers)) for r in run.rounds) for run in runs]
    struck = [sum(name in run.cell.attackers for r in run.rounds for name in r.struck) for run in runs]
    honest = [[set(r.blamed) - set(run.cell.attackers) for r in run.rounds] for run in runs]
    lost = [_lost_blocks(run) for run in runs]
    mine = [[blocks.get(name, 0) for name in run.cell.attackers] for run, blocks in zip(runs, lost, strict=True)]
    others = [
        max((count for name, count in blocks.items() if name not in run.cell.attackers), default=0)
        for run, blocks in zip(runs, lost, strict=True)
    ]
    return Row(
        nodes=first.nodes,
        attackers=len(first.attackers),
        fault=first.fault,
        rule=first.rule,
        setting=first.setting,
        ratios=[_ratio(run, compared, score) for run, compared in pairs],
        worst_ratios=[_worst_ratio(run, compared) for run, compared in pairs],
        ended=all(run.ended for run in runs),
        reasons=sorted({run.reason for run in runs if run.reason}),
        named=fmean(named) if named else 0.0,
        any_named=fmean(any_named),
        struck=fmean(struck),
        blocks=min((count for counts in mine for count in counts), default=0),
        honest_blocks=max(others),
        honest_named=max(sum(bool(names) for names in rounds) for rounds in honest),
        quarantined=sum(_longest_streak(rounds) >= STRIKES for rounds in honest),
        most_lost=all(min(counts, default=0) > most for counts, most in zip(mine, others, strict=True)),
    )


def _ratio(run: Result, compared: Result | None, score: Callable[[Sequence[float]], float]) -> float | None:
    names = sorted(set(run.losses) & set(compared.losses)) if compared else []
    if not names or compared is None:
        return None
    return score([run.losses[name] for name in names]) / score([compared.losses[name] for name in names])


def _worst_ratio(run: Result, compared: Result | None) -> float | None:
    names = set(run.losses) & set(compared.losses) if compared else set()
    return max((run.losses[name] / compared.losses[name] for name in names), default=None) if compared else None


def _lost_blocks(run: Result) -> dict[str, int]:
    lost: dict[str, int] = {}
    for found in run.rounds:
        for name, blocks in found.lost_blocks.items():
            lost[name] = lost.get(name, 0) + blocks
    return lost


def _longest_streak(rounds: Sequence[set[str]]) -> int:
    """Returns the most rounds in a row in which one node was blamed."""
    longest, streaks = 0, dict[str, int]()
    for names in rounds:
        streaks = {name: streaks.get(name, 0) + 1 for name in names}
        longest = max([longest, *streaks.values()])
    return longest


def _mean(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return fmean(known) if known and len(known) == len(ratios) else None


def _highest(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return max(known) if known and len(known) == len(ratios) else None


def _where(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.label}, {row.nodes} nodes" for row in rows)
