"""`trfmoe import` of a dense model: a run that trains, and a word about text that is not there."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from scripts.main import main
from tests.trfmoe_core.model.stock.families.test_families import make
from trfmoe_core.data.tokenizers import load_tokenizer


def imported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ending:
        main(["import", *arguments])
    shown = capsys.readouterr()
    return int(ending.value.code or 0), shown.out + shown.err


def test_a_dense_model_and_text_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows: dict[str, Any] = {"vocab_size": 320}
    make(tmp_path / "dense", "llama", rows)
    load_tokenizer("byte").save(tmp_path / "dense")
    code, said = imported(capsys, "dense", "three_nodes", "--experts", "4")
    assert code == 0 and "begins with the weights of dense" in said
    assert "data/first: the recipe names this text, and it is not here; import again with --pdfs" in said
    for name in "abc":
        (tmp_path / name).mkdir()
    texts = [part for name in "abc" for part in ("--pdfs", name)]
    code, said = imported(capsys, "dense", "three_nodes", "--experts", "4", *texts)
    assert code == 0 and "is not here" not in said
    code, said = imported(capsys, "dense", "three_nodes", "--experts", "1")
    assert code == 2 and "--top-k 2: " in said and "give --top-k 1" in said


def test_what_changes_against_recipe_and_folder_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "dense", "llama", {"vocab_size": 320})  # made for 32 positions
    load_tokenizer("byte").save(tmp_path / "dense")
    assert "model.context" not in imported(capsys, "dense", "three_nodes", "--context", "16")[1]
    for context, said in (
        ("512", "the recipe says 512 tokens a sequence, but the folder's model was made for 32 positions"),
        ("16", "the recipe says 16 tokens a sequence and the folder 32; the run trains with 32, and import with"),
    ):
        recipe = tmp_path / f"of-{context}.yaml"
        recipe.write_text(f"name: r\nmodel: {{context: {context}}}\nnodes: [{{name: a, data: [dense]}}]\n")
        code, found = imported(capsys, "dense", str(recipe))
        assert code == 0 and said in found
    code, found = imported(capsys, "dense", "three_nodes", "--context", "64")
    assert code == 0 and "--context 64: the folder's model was made for 32 positions and has never seen later" in found
    backend = Tokenizer.from_file("dense/tokenizer.json")
    backend.normalizer = normalizers.Strip()
    backend.save("dense/tokenizer.json")
    config = json.loads(Path("dense/tokenizer_config.json").read_text())
    del config["trfmoe_tokenizer"]
    Path("dense/tokenizer_config.json").write_text(json.dumps(config))
    code, found = imported(capsys, "dense", "three_nodes")
    assert code == 0 and "warning: tokenizer of dense: it normalises text" in found
