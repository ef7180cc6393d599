"""`trfmoe import` of a dense model: a run that trains, and a word about text that is not there."""

from pathlib import Path
from typing import Any

import pytest

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
