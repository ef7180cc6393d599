"""`trfmoe data`: prepare, look into, and train a tokenizer, as a user would."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.main import main
from tests.conftest import words
from trfmoe_core.data.tokenizers import load_tokenizer


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as ended:
        main(["data", *arguments, "--json"])
    out, err = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, json.loads(out.splitlines()[-1]), err


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [json.dumps({"text": words(seed, 400)}) for seed in range(40)]
    (folder / "some.jsonl").write_text("\n".join([*lines, lines[0]]))
    (folder / "other.txt").write_text(words(99, 4000))
    return folder


def test_train_a_tokenizer_prepare_with_it_and_see_where_a_batch_comes_from(
    capsys: pytest.CaptureFixture[str], texts: Path, tmp_path: Path
) -> None:
    bpe = tmp_path / "bpe"
    code, trained, said = run(capsys, "tokenizer", str(texts), "--vocab-size", "300", "--out", str(bpe))
    assert (code, trained["vocab_size"], load_tokenizer(str(bpe)).vocab_size) == (0, 300, 300)
    assert "warning: a vocabulary holds words of the text" in said
    code, prepared, said = run(capsys, "prepare", str(texts), "--tokenizer", str(bpe))
    found = prepared["nodes"]["local"]
    assert (code, found["held_out_in_train"], found["tokenizer"]["vocab_size"]) == (0, 0, 300)
    assert found["duplicates"] == 1
    assert "held-out pieces also in train: 0" in said
    assert found["bytes_per_token"] > 2
    more = ["--set", "data.packing=best_fit", "--set", "model.document_mask=true", "--set", "model.context=64"]
    code, seen, said = run(capsys, "inspect", str(texts), "--tokenizer", str(bpe), "--batch", "3", "--rows", "4", *more)
    assert (code, seen["key"], len(seen["rows"])) == (0, found["key"], 4)
    (source,) = seen["sources"]
    assert (source["share"], source["on_end"]) == (1.0, "repeat")
    assert source["cursor"] == {"epoch": 0, "row": 3 * 12}
    assert 0.9 < source["filled"] <= 1
    originals = {"some.jsonl": (texts / "some.jsonl").read_text(), "other.txt": (texts / "other.txt").read_text()}
    for row in seen["rows"]:
        assert row["tokens"] <= 65
        assert row["parts"][0]["positions"][0] == 0
        for part in row["parts"]:
            name = Path(part["file"]).name
            assert json.dumps(part["text"])[1:-1] in originals[name] or part["text"] in originals[name]
            assert name == "other.txt" or part["place"].startswith("line ")


def test_what_a_node_of_a_recipe_trains_on(capsys: pytest.CaptureFixture[str], texts: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(words(7, 4000))
    recipe = tmp_path / "recipe.yaml"
    data = [f"{{path: {texts}, weight: 3, on_end: stop}}", f"{{path: {tmp_path / 'own.txt'}}}"]
    nodes = [f"{{name: n{number}, data: [{', '.join(data)}]}}" for number in range(3)]
    recipe.write_text(f"model: {{context: 32}}\ndata: {{piece_bytes: 512}}\nnodes: [{', '.join(nodes)}]\n")
    code, failed, _ = run(capsys, "inspect", "--config", str(recipe))
    assert (code, failed["error"]) == (2, "which node? Give --node with one of n0, n1, n2")
    code, seen, said = run(capsys, "inspect", "--config", str(recipe), "--node", "n1", "--rows", "12")
    assert code == 0
    assert [(source["share"], source["on_end"]) for source in seen["sources"]] == [(0.75, "stop"), (0.25, "repeat")]
    assert [row["source"] for row in seen["rows"]].count(str(texts)) == 9
    assert "75% of the tokens, stop at its end" in said
    code, other, _ = run(capsys, "inspect", "--config", str(recipe), "--node", "n2", "--rows", "12")
    assert other["rows"] != seen["rows"]
    code, found, _ = run(capsys, "prepare", "--config", str(recipe))
    assert (code, set(found["nodes"])) == (0, {"n0", "n1", "n2"})


def test_entries_may_be_mappings_and_wrong_ones_are_explained(capsys: pytest.CaptureFixture[str], texts: Path) -> None:
    code, seen, _ = run(capsys, "inspect", f"{{path: {texts}, weight: 2}}", str(texts / "other.txt"), "--rows", "1")
    assert (code, [source["share"] for source in seen["sources"]]) == (0, [1.0])
    assert any("takes no part" in note for note in seen["notes"])
    for arguments, expected in (
        (["prepare"], "no data: name files and folders"),
        (["prepare", "{source: nowhere}"], "'nowhere' is unknown"),
        (["inspect", "{source"], "no mapping in YAML"),
        (["inspect", str(texts / "gone")], "no such file or folder"),
        (["inspect", str(texts), "--tokenizer", "./gone"], "no such folder"),
        (["inspect", str(texts), "--set", "data.packing=best_fit"], "model.document_mask=true"),
        (["tokenizer", str(texts), "--vocab-size", "200", "--out", str(texts / "x")], "ask for more"),
    ):
        code, failed, _ = run(capsys, *arguments)
        assert code == 2
        assert expected in failed["error"]
