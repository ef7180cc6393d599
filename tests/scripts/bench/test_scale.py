"""The benchmark of scale: whole runs of many nodes come to their end. What it measures is not tested."""

from math import isfinite

from scripts.bench import child
from scripts.bench.scale import QUANTITIES, exponents


def test_every_node_is_heard_and_few_requests_ask_for_answers() -> None:
    rows = [
        child.result_of("scripts.bench.scale:measure", count=count, unheld="absent", experts=48) for count in (9, 30)
    ]
    assert [row["nodes"] for row in rows] == [9, 30]
    assert [row["requests_by_kind"]["PullMessages"] for row in rows] == [9, 1]
    assert rows[0]["requests_by_kind"]["ConfirmMessageReceived"] == 9
    assert abs(rows[0]["open_files"] - rows[1]["open_files"]) <= 3
    assert all(isfinite(exponents(rows)[key]) for key in QUANTITIES)


def test_the_exponent_of_what_grows_with_the_square_is_two() -> None:
    rows = [{"nodes": nodes, **dict.fromkeys(QUANTITIES, nodes**2)} for nodes in (10, 100, 300)]
    assert all(abs(slope - 2) < 1e-9 for slope in exponents(rows).values())
