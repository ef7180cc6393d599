"""A node that is outvoted and has little text is told that this may be why, once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Message

from clients.attacks.reply_editing import open_reply, refill_reply
from server.report.page import render
from server.run_folder.history import RunHistory
from strategies.membership.little_text import little_text
from tests.conftest import words
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.wire import map_values

MANY = {"ada": 5000, "bob": 6000, "cyd": 1000}


def test_the_words() -> None:
    assert little_text("cyd", MANY, 900).startswith(
        "cyd has 1,000 tokens of text, and the others have 5,500 in the median; this may"
    )
    both = "have 5,500 in the median and a round trains on 1,001, so it reads the same text again and again; this may"
    assert both in little_text("cyd", MANY, 1001)
    assert little_text("ada", MANY, 5000) == "", "not less than the others, and enough for a round"
    assert "a round trains on 5,001" in little_text("ada", MANY, 5001)
    assert little_text("eve", MANY, 1) == "", "its text is not known"
    assert little_text("cyd", {"cyd": 9}, 0) == ""


def turned_round(node: int, message: Message) -> Message:
    """What a node might send whose text is another: every value of its update the other way."""
    found = open_reply(message) if node == 3 else None
    if found is None:
        return message
    reply, parcel = found
    return refill_reply(message, reply, map_values(parcel, torch.neg))


@pytest.mark.parametrize(("pieces", "told"), [(300, 1), (4000, 0)])
def test_a_run_says_so(tiny_recipe: Callable[..., Recipe], tmp_path: Path, pieces: int, told: int) -> None:
    recipe = tiny_recipe()
    (tmp_path / "texts" / "cyd" / "text.txt").write_text(words(2, pieces))
    folder, events = run_recipe(recipe, turned_round)
    history = RunHistory(events)
    assert len(history.outvoted_rounds()["cyd"]) == recipe.rounds.num_rounds
    texts = [event["text"] for event in of_kind(events, "warning") if "tokens of text" in event["text"]]
    assert len(texts) == told
    assert all(text.startswith("round 1: cyd has ") for text in texts)
    assert list(history.little_text()) == ["cyd"] * told
    assert render(history, folder.path).count("this may be why it was outvoted") == 2 * told, "summary and warnings"
