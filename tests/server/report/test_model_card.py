"""The model card says what the journal says, and names from elsewhere cannot change it."""

from pathlib import Path

from server.report.model_card import model_card
from server.run_folder.folder import RunFolder
from tests.scripts.journal import events, write_journal
from trfmoe_core.config import Recipe
from trfmoe_core.model.transformer import build_model


def test_the_card_of_a_federation(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Recipe(name="clinics"))
    made = [event | {"tokens": 500} if event["event"] == "node_reply" else event for event in events()]
    write_journal(folder.path, made)
    card = model_card(folder, 3, build_model(folder.recipe.model, 320, 0))
    assert card.startswith("---\nlibrary_name: transformers\n") and "# clinics\n" in card
    assert "after round 3 of 3" in card and "| digest of the weights | digest-3 |" in card
    assert "needs 2.0100 bits a byte" in card
    assert "| carol | 1,500 | 33 % | 2.0200 |" in card
    assert "began with the weights of another" not in card


def test_a_run_without_a_journal_and_evil_names(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Recipe(name="new"))
    model = build_model(folder.recipe.model, 320, 0)
    assert "not trained here" in model_card(folder, 0, model)
    evil = "a|b\n| c"
    text = [{**event, "node": evil} if event.get("node") == "carol" else event for event in events()]
    holders = {"trunk": ["alice", "bob", evil]}
    swapped = [event | {"holders": holders} if "holders" in event else event for event in text]
    write_journal(folder.path, swapped)
    rows = [line for line in model_card(folder, 3, model).splitlines() if line.startswith("| a/b")]
    assert len(rows) == 1 and rows[0].count("|") == 5
