"""`trfmoe import` of a dense model: a run that trains, and a word about text that is not there."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers

from scripts.main import main
from tests.conftest import words
from tests.trfmoe_core.model.stock.families.test_families import make
from trfmoe_core.data.tokenizers import load_tokenizer


def imported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ending:
        main(["import", *arguments])
    shown = capsys.readouterr()
    return int(ending.value.code or 0), shown.out + shown.err


def test_a_dense_model_becomes_low_rank_experts_that_train_and_go_out_as_full_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "dense", "llama", {"vocab_size": 320})
    load_tokenizer("byte").save(tmp_path / "dense")
    (tmp_path / "text.txt").write_text(words(0, 3000))
    training = {"freeze": "base", "steps": 6, "warmup_steps": 1, "learning_rate": 0.02, "batch_size": 4}
    recipe: dict[str, Any] = {
        "data": {"sources": ["text.txt"], "evaluation_tokens": 256, "piece_bytes": 512},
        "training": training,
        "local": {"evaluate_every": 3},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    code, said = imported(capsys, "dense", "r.yaml", "--experts", "4", "--low-rank", "4")
    assert code == 0, said
    (run,) = (tmp_path / "runs").iterdir()
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (recipe["model"]["expert"], recipe["model"]["rank"]) == ("low_rank", 4)
    with pytest.raises(SystemExit) as ending:
        main(["train", f"{run}/recipe.yaml", "--run-dir", str(run)])
    assert not ending.value.code, capsys.readouterr().err
    weights = load_file(run / "checkpoints" / "round-000006" / "weights.safetensors")
    trained = {name.partition(".")[2].partition(".")[2] for name in weights}
    assert trained == {"experts.b_gate_up_EGR", "experts.b_down_EDR", "router.weight"}
    with pytest.raises(SystemExit) as ending:
        main(["export", str(run), "out", "--last", "--json"])
    told = capsys.readouterr()
    assert not ending.value.code, told.err
    assert json.loads(told.out.splitlines()[-1])["max_difference"] <= 1e-5
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_local_experts"] == 4


def test_a_dense_model_and_text_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows: dict[str, Any] = {"vocab_size": 320}
    make(tmp_path / "dense", "llama", rows)
    load_tokenizer("byte").save(tmp_path / "dense")
    code, said = imported(capsys, "dense", "three_nodes", "--experts", "4")
    assert code == 0 and "begins with the weights of dense" in said
    assert said.count("warning: three_nodes names text") == said.count("/data/third") == 1, said
    assert "names text that is not on this machine: " in said and "data/first, " in said and "--pdfs FOLDER" in said
    for name in "abc":
        (tmp_path / name).mkdir()
    texts = [part for name in "abc" for part in ("--pdfs", name)]
    code, said = imported(capsys, "dense", "three_nodes", "--experts", "4", *texts)
    assert code == 0 and "not on this machine" not in said
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
