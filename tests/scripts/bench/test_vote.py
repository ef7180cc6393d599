"""The benchmark of votes: it measures every rule that it names, Flower's too. What it measures is not tested."""

from math import isfinite

import pytest

from scripts.bench.vote import flower_cases, make_replicas, measure, our_cases
from scripts.main import app, main

KEYS = ["median", "majority", "majority_outvoted", "majority_split", "fedavg", "fedmedian", "fedtrimmedavg", "krum"]


def test_every_case_is_measured() -> None:
    result = measure(0.05, 1)
    assert all(isfinite(result[f"{key}_over_floor"]) and result[f"{key}_over_floor"] > 0 for key in KEYS)
    assert result["floor_ms"] > 0


def test_the_sets_are_what_their_names_say() -> None:
    cases = our_cases(make_replicas(0.4))
    outcomes = {name: case()[1].outcome for name, case in cases.items() if name.startswith("majority")}  # type: ignore[index]
    assert outcomes.pop("majority_outvoted") == "majority"
    assert outcomes.pop("majority_split") == "median"
    assert set(outcomes.values()) == {"unanimous"}


def test_flower_and_we_find_the_same_median() -> None:
    replicas = make_replicas(0.05)
    arrays, _ = flower_cases(replicas[""])["fedmedian"]()  # type: ignore[misc]
    ours = our_cases(replicas)["median"]()
    assert (arrays["update"].numpy() == ours.numpy()).all()  # type: ignore[attr-defined]


def test_wrong_numbers_of_nodes_are_refused_before_anything_is_measured(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", "memory", "--nodes", "3,x"])
    assert exit_info.value.code == 2
    out, shown = capfd.readouterr()
    assert "--nodes 3,x: give numbers" in shown and not out


def test_the_command_runs_the_benchmarks(capfd: pytest.CaptureFixture[str]) -> None:
    app(["bench", "vote", "--megabytes", "0.01", "--groups", "1", "--json"], standalone_mode=False)
    out, _ = capfd.readouterr()
    assert '"median_over_floor": ' in out.splitlines()[-1]
