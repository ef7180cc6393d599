"""The whole way in one process: real ServerApp, strategy and ClientApp."""

from collections.abc import Callable

from server.checkpoint import checkpoint_rounds
from server.recorder import best_round, last_checkpoint
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe


def test_three_nodes_learn_and_agree(tiny_recipe: Callable[..., Recipe]) -> None:
    folder, events = run_recipe(tiny_recipe())
    finished = of_kind(events, "run_finished")[0]
    assert finished["outcome"] == "completed"
    assert finished["rounds"] == 3
    bits = [event["bits_per_byte"] for event in of_kind(events, "evaluated")]
    assert len(bits) == 4
    assert bits[-1] < bits[0]
    for event in of_kind(events, "round_committed"):
        assert event["outcomes"] == {"unanimous": 2 * 4 + 1}
        assert event["outvoted"] == {}
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint.state["digest"] == finished["digest"]
    assert set(checkpoint_rounds(folder.checkpoints_path)) == {2, 3}
    assert best_round(folder) == finished["best_round"]


def test_the_same_seed_gives_the_same_weights(tiny_recipe: Callable[..., Recipe]) -> None:
    digests = [of_kind(run_recipe(tiny_recipe())[1], "run_finished")[0]["digest"] for _ in range(2)]
    assert digests[0] == digests[1]
    other = of_kind(run_recipe(tiny_recipe(seed=1))[1], "run_finished")[0]["digest"]
    assert other != digests[0]
