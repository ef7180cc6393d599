"""Which rate a side gets, which cells follow, and what the tables say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts.experiments.cell import Cell, Result
from scripts.experiments.rows import Promise
from scripts.experiments.runner import conduct
from scripts.experiments.sides import DealtText, Side, rate_of
from scripts.experiments.store import Store
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_losses,
    best_rate,
    goal,
    goal_table,
    loss_table,
    ratios,
)
from scripts.terminal.output import Output

ONE = Side(name="one", parts=3, nodes=1, settings={})
FED = Side(name="fed", parts=3, nodes=3, settings={})


def loss_of(cell: Cell) -> float:
    """Lower for the federation, and lowest at a rate of 2 for one machine and 3 for the federation."""
    best = 2.0 if cell.nodes == 1 else 3.0
    return cell.nodes + abs(rate_of(cell) - best) + 0.1 * cell.seed


class Made(TunedStudy):
    """A study that trains nothing."""

    def tuned(self) -> list[Tuned]:
        return [Tuned(side=ONE, rates=[1, 2, 3], seeds=3), Tuned(side=FED, rates=[1, 2, 3])]

    def train(self, cell: Cell) -> Result:
        return Result(cell=cell, losses={"a": loss_of(cell) - 0.5, "b": loss_of(cell) + 0.5}, rounds=[])

    def goals(self, results: Results) -> list[Promise]:
        return [goal("fed over one", 2.0, ratios(FED, ONE, results))]

    def markdown(self, results: Results) -> list[str]:
        return [*loss_table(self, results, [ONE]), *goal_table(self.goals(results))]


def conducted(folder: Path, made: TunedStudy) -> dict[Cell, Result]:
    return conduct(made, Store(folder, "made"), 1, Output(True))


def test_the_best_rate_gets_the_other_seeds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = Made(base={}, text=DealtText(tmp_path, ("a", "b")))
    results = conducted(tmp_path, made)
    assert sorted((cell.nodes, rate_of(cell), cell.seed) for cell in results) == [
        *((1, 1, 0), (1, 2, 0), (1, 2, 1), (1, 2, 2), (1, 3, 0)),
        *((3, 1, 0), (3, 2, 0), (3, 3, 0)),
    ]
    assert (best_rate(ONE, results), best_rate(FED, results)) == (2, 3)
    assert best_losses(ONE, results) == {0: 1.0, 1: 1.1, 2: 1.2}
    assert ratios(FED, ONE, results) == [3.0], "only seeds that both have are compared"
    table = "\n".join(made.markdown(results))
    assert "| one | 2 | 1.100 (1.000-1.200) | 1: 2.000, 2: 1.000, 3: 2.000 | 1.000 (1.000-1.000) |" in table
    assert "| fed over one | 2 | 3.000 | **missed by 1.000** |" in table
    told = made.payload(results)
    assert told["ended"] and told["seeds"] == [0, 1, 2] and len(told["cells"]) == 8
    capfd.readouterr()
    assert conducted(tmp_path, made) == results
    assert "6 of them trained before" in capfd.readouterr().err, "a study that was stopped goes on where it was"


def test_a_faulty_run_is_not_taken_for_a_sides_best() -> None:
    lying = FED.cell(2, 0, "sign_flip", ("node-03",))
    results = {
        lying: Result(cell=lying, losses={"a": 0.1}, rounds=[]),
        FED.cell(1, 0): Result(cell=FED.cell(1, 0), losses={"a": 1.0}, rounds=[]),
    }
    assert best_rate(FED, results) == 1


@pytest.mark.parametrize(("values", "kept", "text"), [([1.0, 1.2], True, "reached"), ([], False, "not measured")])
def test_a_goal_is_about_the_mean(values: Sequence[float], kept: bool, text: str) -> None:
    found = goal("g", 1.1, values)
    assert found.kept is kept and text in goal_table([found])[-1]


def test_results_of_lost_runs_count_as_infinitely_bad() -> None:
    cells = [FED.cell(rate, 0) for rate in (1, 2)]
    results: dict[Cell, Any] = {
        cells[0]: Result(cell=cells[0], losses={}, rounds=[], ended=False),
        cells[1]: Result(cell=cells[1], losses={"a": 9.0}, rounds=[]),
    }
    assert best_rate(FED, results) == 2
