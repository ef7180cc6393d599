"""The mean when one of two nodes that contradict each other is left out."""

import pytest
import torch

from strategies.voting.vote import LONGEST
from strategies.voting.without import mean_without

PARTS = ((slice(0, 2),), (slice(2, 4),))
ONE = torch.tensor([3.0, 4.0, 0.0, 1.0])


def test_each_part_counts_with_so_many_median_lengths_of_all() -> None:
    long = torch.tensor([0.0, 50.0, 0.5, 0.0])
    update, verdict = mean_without({"b"}, {"a": ONE, "b": -ONE, "c": long}, PARTS, torch.empty(4))
    shortened = torch.tensor([0.0, 5.0 * LONGEST, 0.5, 0.0])
    assert update.tolist() == pytest.approx(((ONE + shortened) / 2).tolist())
    assert (verdict.outcome, verdict.accepted, verdict.outvoted) == ("majority", ("a", "c"), ("b",))


def test_a_copy_counts_once_and_is_named() -> None:
    other = torch.tensor([4.0, 3.0, 1.0, 0.0])
    update, verdict = mean_without({"d"}, {"a": ONE, "b": ONE.clone(), "c": other, "d": -ONE}, PARTS, torch.empty(4))
    assert update.tolist() == pytest.approx(((ONE + other) / 2).tolist())
    assert verdict.accepted == ("a", "b", "c")
