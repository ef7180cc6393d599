"""`trfmoe evaluate`: a run, its export and a stock folder on the same text, and what it refuses."""

import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.conftest import words
from tests.scripts.commands.test_export import _train, call, result
from trfmoe_core.data.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run, its export, an import of the export that was trained on, and other text."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _train()
        assert call("export", "runs/t-local-001", "out", "--no-check") == 0
        assert call("import", "out", "r.yaml", "--set", "name=more-local") == 0
        more = "runs/more-local-001"
        assert call("train", f"{more}/recipe.yaml", "--run-dir", more) == 0
        Path("other").mkdir()
        Path("other/a.txt").write_text(words(7, 300))
        Path("other/b.jsonl").write_text(json.dumps({"text": words(8, 200)}) + "\n")
    yield folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for recipe in tmp_path.glob("runs/*/recipe.yaml"):
        recipe.write_text(recipe.read_text().replace(str(trained), str(tmp_path)))
    capfd.readouterr()
    return tmp_path


def test_a_run_and_its_export_are_scored_alike(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", "runs/t-local-001", "--data", "other", "--json") == 0
    ours = result(capfd)
    assert call("evaluate", "out", "--data", "other", "--json") == 0
    theirs = result(capfd)
    (mine,), (stock,) = ours["texts"], theirs["texts"]
    size = sum(len(text.encode()) for text in (words(7, 300), words(8, 200)))
    # Cleaning may strip the end of a text.
    assert size - 4 <= mine["bytes"] == stock["bytes"] == mine["tokens"] <= size
    assert mine["bits_per_byte"] == pytest.approx(stock["bits_per_byte"], rel=1e-5)
    assert mine["perplexity"] == pytest.approx(2 ** mine["bits_per_byte"], rel=1e-4)
    assert "baseline" not in mine and ours["context"] == 32 and ours["stride"] == 16


def test_an_imported_run_is_compared_with_what_it_began_as(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("--data", "other/a.txt", "--data", "other/b.jsonl", "--json")
    assert call("evaluate", "more-local-001", "--last", *arguments) == 0
    found = result(capfd)
    assert [row["text"] for row in found["texts"]] == ["other/a.txt", "other/b.jsonl", "all"]
    assert call("evaluate", "more-local-001", "--last", *arguments[:-1]) == 0
    begins, *texts = capfd.readouterr().out.splitlines()[:3]
    assert begins.startswith("scoring more-local-001, round ") and "as it was imported on 2 texts: " in begins
    assert f"{found['texts'][2]['tokens']:,} tokens in windows of 32" in begins
    assert [line.partition(": ")[0] for line in texts] == ["other/a.txt", "other/b.jsonl"]
    first, second, both = found["texts"]
    assert both["bytes"] == first["bytes"] + second["bytes"]
    for row in found["texts"]:
        assert row["ratio"] == pytest.approx(row["bits_per_byte"] / row["baseline"]["bits_per_byte"])
    assert both["ratio"] < 1
    assert call("evaluate", "out", *arguments) == 0
    assert result(capfd)["texts"][2]["bits_per_byte"] == pytest.approx(both["baseline"]["bits_per_byte"], rel=1e-5)
    assert call("evaluate", "more-local-001", "--last", "--baseline", "out", *arguments) == 0
    other = result(capfd)
    assert other["texts"][2]["ratio"] == pytest.approx(both["ratio"], rel=1e-5) and other["baseline"] == "out"
    assert call("evaluate", "more-local-001", "--round", "0", *arguments) == 0
    assert "ratio" not in result(capfd)["texts"][2]


def test_without_files_the_held_out_text_of_the_run_is_scored(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", "more-local-001", "--last") == 0
    said = capfd.readouterr()
    assert "cyd, held out" in said.out and "beside more-local-001 as it was imported" in said.out
    assert call("evaluate", "t-local-001", "--last", "--json") == 0
    (row,) = result(capfd)["texts"]
    assert row["text"] == "local, held out"
    last = [json.loads(line) for line in Path("runs/t-local-001/events.jsonl").read_text().splitlines()]
    measured = [event["bits_per_byte"] for event in last if event.get("bits_per_byte")][-1]
    # The run's own evaluation cuts all pieces at once into windows that do not overlap.
    assert row["bits_per_byte"] == pytest.approx(measured, rel=0.03)
    shutil.rmtree("ada")
    shutil.rmtree("bob")
    shutil.rmtree("cyd")
    assert call("evaluate", "more-local-001") == 2
    assert "name files with --data" in capfd.readouterr().err


def test_any_stock_folder_is_scored(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    shape = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=24, vocab_size=320)
    GPT2LMHeadModel(shape).save_pretrained("gpt2")
    load_tokenizer("byte").save(Path("gpt2"))
    assert call("evaluate", "gpt2", "--data", "other", "--baseline", "out", "--json") == 0
    found = result(capfd)
    assert found["context"] == 24 and math.log2(200) < found["texts"][0]["bits_per_byte"] < math.log2(500)
    assert found["texts"][0]["ratio"] > 1


def test_text_that_was_trained_on_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", "t-local-001", "--data", "ada/text.txt") == 0
    assert "ada/text.txt: local trained on most of it, so this is no held-out loss" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "--data", "other"), "nowhere: not a run folder"),
        (("out",), "give --data FILE_OR_FOLDER"),
        (("out", "--data", "missing.txt"), "no such file or folder"),
        (("out", "--data", "other", "--last"), "--round and --last choose among those of a run"),
        (("out", "--data", "other", "--context", "64"), "--context 64: the models take 32 tokens at most"),
        (("out", "--data", "empty"), "no file gave any text"),
        (("out", "--data", "other", "--baseline", "other"), "other: "),
        (("out", "--data", "other", "--limit", "3"), "are of --tasks"),
        (("pickled", "--data", "other"), "pickled: transformers does not open it"),
        (("torn", "--data", "other"), "torn: "),
        (("t-local-001", "--round", "99", "--data", "other"), "--round 99"),
    ],
)
def test_what_cannot_be_scored_is_named(
    place: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    Path("empty").mkdir()
    Path("empty/a.txt").write_text(" \n")
    for name in ("pickled", "torn"):
        shutil.copytree("out", name)
    Path("pickled/model.safetensors").rename("pickled/pytorch_model.bin")
    weights = Path("torn/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert call("evaluate", *arguments) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error


def test_missing_weights_are_not_drawn_at_random(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file("out/model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, "out/model.safetensors", metadata={"format": "pt"})
    assert call("evaluate", "out", "--data", "other") == 2
    assert "1 weights, such as model.norm.weight, are missing, and config.json asks for them" in capfd.readouterr().err


class Harness:
    """Stands for lm_eval: notes what it is asked, and opens the folder as the harness does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: dict[str, Any] = {}
        module, tasks = ModuleType("lm_eval"), ModuleType("lm_eval.tasks")

        class TaskManager:
            def __init__(self, include_path: str | None = None) -> None:
                self.include_path = include_path

            def match_tasks(self, names: list[str]) -> list[str]:
                known = {"sums"} | (
                    {path.stem for path in Path(self.include_path).iterdir()} if self.include_path else set()
                )
                return [name for name in names if name in known]

        def simple_evaluate(**asked: Any) -> dict[str, Any]:
            from transformers import AutoModelForCausalLM

            self.asked = asked
            if asked["limit"] == 13:
                raise ConnectionError("no route to the hub\nmore")
            AutoModelForCausalLM.from_pretrained(asked["model_args"]["pretrained"])
            scores = {"alias": "x", "acc,none": 0.25, "acc_stderr,none": "N/A"}
            return {"results": dict.fromkeys(asked["tasks"], scores)}

        module.simple_evaluate, tasks.TaskManager = simple_evaluate, TaskManager  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lm_eval", module)
        monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)


def test_tasks_are_handed_to_the_harness(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    assert call("evaluate", "out", "--tasks", "sums") == 3
    assert "the package lm_eval is not installed; install it with: pip install 'lm_eval[hf]'" in capfd.readouterr().err
    harness = Harness(monkeypatch)
    Path("mine").mkdir()
    Path("mine/law.yaml").write_text("task: law\n")
    assert (
        call("evaluate", "t-local-001", "--tasks", "sums, law", "--tasks-folder", "mine", "--limit", "5", "--json") == 0
    )
    found = result(capfd)
    assert found["tasks"] == {name: {"acc,none": 0.25} for name in ("sums", "law")} and "texts" not in found
    assert harness.asked["tasks"] == ["sums", "law"] and harness.asked["limit"] == 5
    assert harness.asked["model_args"]["trust_remote_code"] is False
    assert not Path(harness.asked["model_args"]["pretrained"]).exists()
    assert call("evaluate", "out", "--tasks", "sums", "--data", "other") == 0
    assert "sums: acc,none 0.2500" in capfd.readouterr().out
    assert harness.asked["model_args"]["pretrained"] == str(place / "out")
    for arguments, code, said in (
        (("--tasks", "law"), 2, "--tasks law: lm_eval knows no such task"),
        (("--tasks", "sums", "--tasks-folder", "nowhere"), 2, "--tasks-folder nowhere: no such folder"),
        (("--tasks", "sums", "--limit", "13"), 1, "lm_eval gave up (no route to the hub); examples that are not on"),
    ):
        assert call("evaluate", "out", *arguments) == code
        assert said in capfd.readouterr().err
