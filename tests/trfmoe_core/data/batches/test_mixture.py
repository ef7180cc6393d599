from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from trfmoe_core.data.batches.mixture import Mixture


def order(mixture: Mixture, windows: int, start: Sequence[int] = ()) -> list[int]:
    counts = list(start) or [0] * len(mixture.weights)
    drawn = []
    for _ in range(windows):
        source = mixture.draw(counts)
        counts[source] += 1
        drawn.append(source)
    return drawn


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), windows=st.integers(1, 300))
def test_every_stretch_from_the_start_holds_the_sources_in_proportion(weights: list[float], windows: int) -> None:
    drawn = order(Mixture(weights, [7] * len(weights), [False] * len(weights)), windows)
    for source, weight in enumerate(weights):
        # Every count is within 1/2 of some common pace, which is itself within S / 2 windows of the number drawn.
        share = weight / sum(weights)
        assert abs(drawn.count(source) - windows * share) <= 0.5 + share * len(weights) / 2 + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    stops=st.lists(st.booleans(), min_size=4, max_size=4),
    cut=st.integers(0, 60),
)
def test_the_order_follows_from_the_counts_alone(lengths: list[int], stops: list[bool], cut: int) -> None:
    mixture = Mixture([float(length) for length in lengths], lengths, stops[: len(lengths)])
    whole = order(mixture, 80)
    counts = [whole[:cut].count(source) for source in range(len(lengths))]
    assert whole[:cut] + order(mixture, 80 - cut, counts) == whole


def test_a_source_that_stops_is_given_out_once_while_the_others_go_on() -> None:
    drawn = order(Mixture([1, 1, 2], [3, 5, 4], [True, False, False]), 400)
    assert drawn.count(0) == 3
    assert max(index for index, source in enumerate(drawn) if source == 0) < 16
    assert abs(drawn.count(2) - 2 * drawn.count(1)) < 4


def test_where_all_stop_all_begin_again_after_each_was_given_out_once() -> None:
    mixture = Mixture([5, 1], [3, 6], [True, True])
    drawn = order(mixture, 27)
    for start in (0, 9, 18):
        assert sorted(drawn[start : start + 9]) == [0] * 3 + [1] * 6
    assert drawn[:9] == drawn[9:18]


def test_weights_count_not_lengths() -> None:
    drawn = order(Mixture([3, 1], [2, 1000], [False, False]), 400)
    assert (drawn.count(0), drawn.count(1)) == (300, 100)
