"""A liar that sees both honest updates, goes with one and against the other: the run chooses between the two."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from clients.attacks.reply_editing import open_reply, parcel_blocks, refill_reply, with_blocks
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from tests.federation import grid_of, of_kind, run_recipe
from tests.strategies.test_tri_redundant import KilledError
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.config import Recipe

ROUNDS = 9
NAMES = ("ada", "bob", "cyd")


def made(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    recipe = tiny_recipe()
    training = recipe.training.model_copy(update={"optimizer": "muon", "precision": "float32", "learning_rate": 0.01})
    return recipe.model_copy(
        update={
            "training": training,
            "rounds": recipe.rounds.model_copy(update={"num_rounds": ROUNDS, "local_steps": 4}),
        }
    )


def lie(friend: Blocks, foe: Blocks) -> Blocks:
    """Returns updates with positive cosines to one and negative ones to the other; half of the trunk is very short."""
    wrong = {}
    for block, update in friend.items():
        one, other = update / update.norm(), foe[block] / foe[block].norm()
        wrong[block] = 0.6 * foe[block].norm() * ((1 + one @ other) / 2 * one - other)
    half = wrong[TRUNK].numel() // 2
    return wrong | {TRUNK: torch.cat([wrong[TRUNK][:half], wrong[TRUNK][half:] / 10])}


def contradicting(liar: str, dies_in: int = 0) -> Callable[[Mapping[str, Message]], Mapping[str, Message]]:
    """The liar goes with the first of the others and against the second one. The coordinator may die in a round."""
    friend, foe = (name for name in NAMES if name != liar)

    def exchange(replies: Mapping[str, Message]) -> Mapping[str, Message]:
        opened = {found[0].name: (key, *found) for key, message in replies.items() if (found := open_reply(message))}
        if len(opened) < len(NAMES):
            return replies
        key, reply, parcel = opened[liar]
        if reply.round == dies_in:
            raise KilledError
        wrong = lie(*(parcel_blocks(opened[name][2]) for name in (friend, foe)))
        return {**replies, key: refill_reply(replies[key], reply, with_blocks(parcel, wrong))}

    return exchange


def last_bits(events: list[dict[str, Any]]) -> float:
    return float(of_kind(events, "evaluated")[-1]["bits_per_byte"])


@pytest.mark.parametrize("liar", NAMES)
def test_the_liar_counts_in_its_trials_only_and_no_block_stands_still(
    tiny_recipe: Callable[..., Recipe], liar: str
) -> None:
    recipe = made(tiny_recipe)
    honest = last_bits(run_recipe(recipe)[1])
    _, events = run_recipe(recipe, exchange=contradicting(liar))
    rounds = of_kind(events, "round_committed")
    foe = [name for name in NAMES if name != liar][1]
    left_out = [sorted(event["outvoted"]) for event in rounds]
    trials = [number for number, names in enumerate(left_out, 1) if names != [liar]]
    assert 1 <= len(trials) <= 2 and trials[-1] <= 4, "once or twice to learn who lies, and not near the end"
    assert all(left_out[number - 1] == [foe] for number in trials)
    assert [event["outcomes"].keys() for event in rounds] == [{"majority"}] * ROUNDS
    assert last_bits(events) < 1.1 * honest
    told = [event["text"] for event in of_kind(events, "warning") if "point away from each other" in event["text"]]
    assert len(told) >= ROUNDS - 1 and all(foe in text and liar in text for text in told)
    assert not of_kind(events, "node_suspect")


def test_a_run_that_was_killed_in_a_trial_goes_on_to_the_same_bits(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = made(tiny_recipe)
    whole = of_kind(run_recipe(recipe, exchange=contradicting("cyd"))[1], "run_finished")[0]["digest"]
    nodes = [node.model_copy(update={"state_dir": f"{node.state_dir}-2"}) for node in recipe.nodes]
    folder = RunFolder.create(Path(recipe.run_root), recipe.model_copy(update={"nodes": nodes}))
    with pytest.raises(KilledError):
        run(grid_of(folder, exchange=contradicting("cyd", dies_in=3)), folder)
    run(grid_of(folder, exchange=contradicting("cyd")), folder)
    events = read_events(folder.events_path)
    assert of_kind(events, "run_started")[1]["resumed_from"] == 2
    assert of_kind(events, "run_finished")[0]["digest"] == whole
