"""Nodes leave and join: only what must move moves, and the rules hold on."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.changes import join, leave, moved, rehome
from strategies.placement.placement import Placement, place
from tests.strategies.placement.test_placement import experts, in_zones, names, spread
from trfmoe_core.blocks import TRUNK
from trfmoe_core.errors import PlacementError


def num_moved(before: Placement, after: Placement) -> int:
    return sum(map(len, moved(before, after).values()))


def check(placement: Placement) -> None:
    assert placement.holders[TRUNK] == placement.nodes == tuple(sorted(placement.nodes))
    for holders in placement.experts.values():
        assert len(set(holders)) == 3
        assert set(holders) <= set(placement.nodes)


@pytest.mark.parametrize(
    ("nodes", "layers", "count", "seed"),
    [(4, 1, 8, 0), (7, 1, 14, 1), (9, 1, 24, 2), (12, 1, 32, 3), (15, 1, 35, 4), (31, 1, 155, 5), (9, 4, 8, 6)],
)
def test_twenty_events_move_the_least_and_share_little_more(nodes: int, layers: int, count: int, seed: int) -> None:
    chance = random.Random(seed)
    placement = place(experts(layers, count), names(nodes))
    for event in range(20):
        if event % 2:
            after = join(placement, f"new-{event}")
            least = 3 * layers * count // len(after.nodes)
        else:
            gone = chance.choice(placement.nodes)
            after = leave(placement, gone)
            least = placement.loads()[gone]
        assert num_moved(placement, after) == least
        assert after.epoch == placement.epoch + 1
        placement = after
        check(placement)
        assert spread(placement) <= 1
        assert placement.pair_max() <= placement.pair_bound() + 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from("abcd") | st.none(), min_size=4, max_size=10),
    st.integers(1, 20),
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("abcd") | st.none()), max_size=6),
)
def test_any_events_keep_the_rules(
    labels: list[str | None], count: int, events: list[tuple[bool, int, str | None]]
) -> None:
    zones = dict(zip(names(len(labels)), labels, strict=True))
    placement = place(experts(1, count), names(len(labels)), zones=zones)
    for number, (joins, which, zone) in enumerate(events):
        if joins:
            after = join(placement, f"new-{number}", zone)
            assert num_moved(placement, after) <= 3 * count // len(after.nodes)
            assert set(moved(placement, after)) <= {f"new-{number}"}
            assert len(after.zone_violations()) <= len(placement.zone_violations())
        elif len(placement.nodes) > 3:
            gone = placement.nodes[which % len(placement.nodes)]
            after = leave(placement, gone)
            assert num_moved(placement, after) == placement.loads()[gone]
            kept = [block for block in placement.experts if gone not in placement.holders[block]]
            assert all(after.holders[block] == placement.holders[block] for block in kept)
        else:
            continue
        placement = after
        check(placement)


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 12), st.integers(1, 30), st.integers(0, 11))
def test_loads_stay_within_one_without_zones(nodes: int, count: int, which: int) -> None:
    placement = place(experts(1, count), names(nodes))
    after = leave(placement, placement.nodes[which % nodes])
    assert spread(after) <= 1
    back = join(after, "back")
    assert spread(back) <= 1
    assert len(moved(after, back).get("back", [])) == 3 * count // nodes


def test_zones_stay_apart_when_a_node_leaves_and_another_joins() -> None:
    placement = place(experts(1, 32), names(12), zones=in_zones(12, 4))
    after = leave(placement, "node-0005")
    assert after.zone_violations() == []
    assert "node-0005" not in after.zones
    back = join(after, "node-0005", "zone-1")
    assert back.zone_violations() == []
    assert spread(back) <= 1
    assert back.zones["node-0005"] == "zone-1"


def test_three_nodes_cannot_become_two() -> None:
    placement = place(experts(1, 4), names(3))
    with pytest.raises(PlacementError, match="node-0001 cannot leave: 2 nodes"):
        leave(placement, "node-0001")
    with pytest.raises(PlacementError, match="nobody else can take them"):
        rehome(placement, "node-0001")


def test_rehome_moves_the_given_replicas_and_keeps_the_node() -> None:
    placement = place(experts(1, 12), names(9))
    held = placement.held_by("node-0002")
    after = rehome(placement, "node-0002", held[:2])
    assert after.epoch == placement.epoch + 1
    assert after.held_by("node-0002") == held[2:]
    assert num_moved(placement, after) == 2
    assert spread(after) <= 3
    assert rehome(after, "node-0002").held_by("node-0002") == [TRUNK]
    check(after)


def test_unknown_and_double_names_are_refused() -> None:
    placement = place(experts(1, 12), names(9))
    with pytest.raises(PlacementError, match="'nobody' takes no part in epoch 1"):
        leave(placement, "nobody")
    with pytest.raises(PlacementError, match="takes part already"):
        join(placement, "node-0000")
    strange = next(block for block in placement.experts if "node-0000" not in placement.holders[block])
    with pytest.raises(PlacementError, match=f"does not hold {strange}"):
        rehome(placement, "node-0000", [strange])
