"""Rounds in which nodes share their momentum: what travels, exact resume, and a node that sends a false one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, MessageType
from torch import Tensor

from clients.attacks.reply_editing import open_reply, parcel_blocks, refill_reply, with_blocks
from scripts.planning.traffic import planned_traffic
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.verify import verify_run
from tests.federation import grid_of, of_kind, run_recipe
from tests.scripts.planning.test_traffic import plan_of
from tests.strategies.test_tri_redundant import KilledError, die_at
from trfmoe_core.config import Recipe, check_federated
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.shared_momentum import PREFIX

LIAR = 3
Change = Callable[[Tensor], Tensor]


def made(tiny_recipe: Callable[..., Recipe], every: int | None, **changes: Any) -> Recipe:
    recipe = tiny_recipe(**changes)
    training = recipe.training.model_copy(update={"optimizer": "muon", "precision": "float32", "learning_rate": 0.01})
    rounds = recipe.rounds.model_copy(update={"momentum_every": every, "num_rounds": 4})
    return recipe.model_copy(update={"training": training, "rounds": rounds})


def lying(change: Change) -> Callable[[int, Message], Message]:
    """The third node changes its momentum and nothing else."""

    def tamper(node_id: int, message: Message) -> Message:
        if node_id != LIAR or message.metadata.message_type == MessageType.QUERY or not (opened := open_reply(message)):
            return message
        reply, parcel = opened
        own = {name: change(values) for name, values in parcel_blocks(parcel).items() if name.startswith(PREFIX)}
        return refill_reply(message, reply, with_blocks(parcel, own))

    return tamper


def last_bits(events: list[dict[str, Any]]) -> float:
    return float(of_kind(events, "evaluated")[-1]["bits_per_byte"])


def digest(events: list[dict[str, Any]]) -> str:
    return str(of_kind(events, "run_finished")[-1]["digest"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"transport": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"}},
        {"experts": {"unheld": "absent"}, "transport": {"broadcast": "bfloat16", "updates": "int4"}},
    ],
)
def test_momentum_travels_in_its_rounds_and_the_plan_counts_it(
    tiny_recipe: Callable[..., Recipe], changes: dict[str, Any]
) -> None:
    recipe = made(tiny_recipe, 2, **changes)
    folder, events = run_recipe(recipe)
    rounds = of_kind(events, "round_committed")
    planned = planned_traffic(plan_of(recipe))
    assert [event["bytes_up"] - planned.up > 0.3 * planned.up for event in rounds] == [False, True, False, False]
    assert planned.momentum_rounds == 1
    assert rounds[1]["bytes_up"] == pytest.approx(planned.up + planned.momentum_up, rel=0.03)
    assert rounds[2]["bytes_down"] == pytest.approx(planned.down + planned.momentum_down, rel=0.03)
    assert rounds[3]["bytes_down"] == pytest.approx(planned.down, rel=0.03)
    assert not [e for e in of_kind(events, "warning") if "momentum" in e["text"]]
    assert all(e["status"] == "accepted" for e in of_kind(events, "node_reply"))
    assert not verify_run(folder).problems


def test_shared_momentum_changes_the_run_and_none_changes_nothing(tiny_recipe: Callable[..., Recipe]) -> None:
    alone, never = (digest(run_recipe(made(tiny_recipe, every))[1]) for every in (None, 9))
    assert alone == never
    assert digest(run_recipe(made(tiny_recipe, 1))[1]) != alone


@pytest.mark.parametrize("moment", [3 * 2 + 2, 3 * 3 + 2])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tiny_recipe: Callable[..., Recipe], moment: int) -> None:
    recipe = made(tiny_recipe, 2)
    whole = digest(run_recipe(recipe)[1])
    nodes = [node.model_copy(update={"state_dir": f"{node.state_dir}-2"}) for node in recipe.nodes]
    folder = RunFolder.create(Path(recipe.run_root), recipe.model_copy(update={"nodes": nodes}))
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(moment)), folder)
    run(grid_of(folder), folder)
    events = read_events(folder.events_path)
    assert of_kind(events, "run_started")[1]["resumed_from"] >= 2
    assert digest(events) == whole


@pytest.mark.parametrize("factor", [-1.0, 0.0, 30.0, -30.0])
def test_a_false_momentum_does_little_harm(tiny_recipe: Callable[..., Recipe], factor: float) -> None:
    recipe = made(tiny_recipe, 1)
    honest = last_bits(run_recipe(recipe)[1])
    _, events = run_recipe(recipe, lying(lambda values: factor * values))
    assert last_bits(events) <= 1.02 * honest
    named = [e["text"] for e in of_kind(events, "warning") if "momentum of cyd" in e["text"]]
    dropped = [e for e in of_kind(events, "node_reply") if e["node"] == "cyd" and e["status"] == "dropped"]
    assert named or dropped


def test_a_momentum_that_is_not_finite_is_refused_by_name(tiny_recipe: Callable[..., Recipe]) -> None:
    _, events = run_recipe(made(tiny_recipe, 2), lying(lambda values: values * float("nan")))
    replies = [e for e in of_kind(events, "node_reply") if e["node"] == "cyd"]
    assert [e["status"] for e in replies if e["round"] == 2] == ["dropped"]
    assert "the momentum of block" in next(e["reason"] for e in replies if e["status"] == "dropped")


def test_a_reply_without_the_momentum_that_was_asked_for_is_dropped(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.worker.momentum_of", lambda state, layout, held: {})
    recipe = made(tiny_recipe, 3)
    _, events = run_recipe(recipe)
    reasons = [e["reason"] for e in of_kind(events, "node_reply") if e["status"] == "dropped"]
    assert len(reasons) == 3
    assert all("blocks that the node holds are missing: momentum." in reason for reason in reasons)


def test_only_muon_has_a_momentum_to_share(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(rounds={"num_rounds": 3, "momentum_every": 1})
    with pytest.raises(ConfigError, match=r"rounds\.momentum_every: 1, but training\.optimizer is adamw"):
        check_federated(recipe)
