"""A federation agrees on one tokenizer, by what it does and not by where it lies."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clients.refusals import RefusedError
from clients.worker import Worker
from tests.conftest import words
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.data.tokenizers.train import train_bpe

SHORT = {"num_rounds": 1, "local_steps": 2, "nodes_deadline_s": 2.0, "reply_deadline_s": 60.0}


def test_a_node_with_another_tokenizer_is_refused_with_both_fingerprints(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    for name, seed in (("shared", 1), ("other", 2)):
        train_bpe([words(seed, 400)], 300, name).save(tmp_path / name)
    # The same tokenizer at another place is the same tokenizer.
    train_bpe([words(1, 400)], 300, "copy").save(tmp_path / "copy")
    recipe = tiny_recipe(rounds=SHORT, data={"tokenizer": str(tmp_path / "shared"), "piece_bytes": 512})
    dan = recipe.nodes[0].model_copy(update={"name": "dan", "tokenizer": str(tmp_path / "other")})
    ada = recipe.nodes[0].model_copy(update={"tokenizer": str(tmp_path / "copy")})
    recipe = recipe.model_copy(update={"nodes": [ada, *recipe.nodes[1:], dan], "num_nodes": 4})
    _, events = run_recipe(recipe)
    assert {event["node"] for event in of_kind(events, "node_joined")} == {"ada", "bob", "cyd"}
    (refused,) = of_kind(events, "node_refused")
    for name in ("shared", "other"):
        assert load_tokenizer(str(tmp_path / name)).fingerprint[:12] in refused["reason"]
    assert "copy the coordinator's tokenizer folder" in refused["reason"]
    (finished,) = of_kind(events, "run_finished")
    assert finished["outcome"] == "completed"


def test_a_node_never_opens_a_folder_that_the_coordinator_names(tmp_path: Path) -> None:
    train_bpe([words(1, 400)], 300, "shared").save(tmp_path / "shared")
    sent = Recipe.model_validate({"data": {"tokenizer": str(tmp_path / "shared")}})
    settings = NodeSettings.model_validate({"name": "eve", "data": ["x"]})
    for recipe in (sent, sent.for_nodes()):
        with pytest.raises(RefusedError, match=r"folder shared; copy it to this node.*tokenizer: FOLDER"):
            Worker(settings, recipe.model_dump(mode="json")).tokenizer()
    settings = settings.model_copy(update={"tokenizer": str(tmp_path / "shared")})
    assert Worker(settings, sent.for_nodes().model_dump(mode="json")).tokenizer().name == "shared"
