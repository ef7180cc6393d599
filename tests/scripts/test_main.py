"""Wrong input gives one clear error and exit code 2, and nothing is started."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from scripts.main import app, main
from scripts.run import federated_run as federation
from tests.conftest import words
from tests.places import ROOT


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A recipe as a mapping, over small texts; a run that gets past the checks is an error."""

    def never(*_: object) -> None:
        raise AssertionError("the run was started")

    monkeypatch.setattr(federation, "simulate_rounds", never)
    monkeypatch.chdir(tmp_path)
    nodes = []
    for number, name in enumerate(("ada", "bob", "cyd")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text(words(number, 2000))
        nodes.append({"name": name, "data": [name]})
    model = {"layers": 2, "width": 32, "heads": 2, "experts": 4, "expert_width": 32, "context": 32}
    data = {"evaluation_tokens": 256, "piece_bytes": 512}
    rounds = {"num_rounds": 2, "local_steps": 2}
    training = {"batch_size": 2, "warmup_steps": 1, "device": "cpu"}
    return {"name": "t", "model": model, "data": data, "training": training, "rounds": rounds, "nodes": nodes}


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    return int(exit_info.value.code or 0)


def unknown_key(recipe: dict[str, Any]) -> str:
    recipe["model"]["widht"] = 64
    return "width"


def wrong_type(recipe: dict[str, Any]) -> str:
    recipe["rounds"]["num_rounds"] = "many"
    return "rounds.num_rounds"


def heads(recipe: dict[str, Any]) -> str:
    recipe["model"]["heads"] = 3
    return "does not divide width"


def top_k(recipe: dict[str, Any]) -> str:
    recipe["model"]["top_k"] = 5
    return "above experts"


def few_nodes(recipe: dict[str, Any]) -> str:
    recipe["nodes"].pop()
    return "3 nodes"


def missing_folder(recipe: dict[str, Any]) -> str:
    recipe["nodes"][1]["data"] = ["nowhere"]
    return "nodes: no such file or folder: bob .*nowhere"


def empty_data(recipe: dict[str, Any]) -> str:
    Path("empty").mkdir()
    Path("empty/none.txt").touch()
    recipe["nodes"][2]["data"] = ["empty"]
    return "node cyd: .*no text"


def unknown_tokenizer(recipe: dict[str, Any]) -> str:
    recipe["data"]["tokenizer"] = "gpt9"
    return "gpt9"


def unwritable_run_root(recipe: dict[str, Any]) -> str:
    Path("file").touch()
    recipe["run_root"] = "file/runs"
    return "run_root"


def unreadable_file(recipe: dict[str, Any]) -> str:
    Path("locked.txt").write_text(words(0, 100))
    Path("locked.txt").chmod(0)
    # root reads everything, but not below a file
    name = "locked.txt" if os.getuid() else "locked.txt/inside.txt"
    recipe["nodes"][0]["data"] = [name]
    return f"ada.*{name}"


@pytest.mark.parametrize(
    "spoil",
    [
        unknown_key,
        wrong_type,
        heads,
        top_k,
        few_nodes,
        missing_folder,
        empty_data,
        unknown_tokenizer,
        unwritable_run_root,
        unreadable_file,
    ],
)
def test_a_bad_recipe_is_one_error_and_code_2(
    recipe: dict[str, Any], spoil: Callable[[dict[str, Any]], str], capfd: pytest.CaptureFixture[str]
) -> None:
    expected = spoil(recipe)
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    assert call("simulate", "bad.yaml", "--json") == 2
    written = capfd.readouterr()
    errors = written.err[written.err.index("error: ") :]
    assert written.err.count("error: ") == 1
    assert "Traceback" not in written.err
    assert re.search(expected, errors), errors
    last = json.loads(written.out.splitlines()[-1])
    assert last["exit_code"] == 2
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_usage_errors_are_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("simulate") == 2
    assert call("no-such-command") == 2
    assert call("generate", "x") == 2
    assert "Traceback" not in capfd.readouterr().err
    assert call("simulate", "no-such-recipe.yaml") == 2
    assert call("generate", "/nowhere", "--prompt", "x") == 2


def test_a_package_that_an_older_installation_lacks_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def lacks(name: str) -> Callable[..., None]:
        def command(*_: object, **__: object) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return command

    monkeypatch.setattr("scripts.main.app", lacks("backports.zstd"))
    assert call("data", "inspect", "x") == 3
    shown = capfd.readouterr().err
    assert "the package backports is not installed" in shown
    assert "make install" in shown
    assert "Traceback" not in shown
    monkeypatch.setattr("scripts.main.app", lacks("scripts.no_such_module"))
    with pytest.raises(ModuleNotFoundError):
        main(["data"])


def test_dry_run_refuses_a_part_that_nobody_registered(
    recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    assert call("simulate", "r.yaml", "--set", "model.expert=lost", "--dry-run") == 2
    assert "model.expert: 'lost' is unknown; choose one of" in capfd.readouterr().err


def test_dry_run_prints_the_resolved_recipe(recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    assert call("simulate", "r.yaml", "--set", "rounds.num_rounds=7", "--dry-run") == 0
    shown = yaml.safe_load(capfd.readouterr().out)
    assert shown["rounds"]["num_rounds"] == 7
    assert shown["nodes"][0]["data"] == [str(Path("ada").resolve())]
    assert not Path("runs").exists()


def test_train_resumes_exactly_and_generates(recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    def result() -> dict[str, Any]:
        value = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert isinstance(value, dict)
        return value

    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    assert call("train", "r.yaml", "--json") == 0
    whole = result()
    assert whole["outcome"] == "completed"
    assert len(whole["bits_per_byte"]) == 3
    # the same run, cut off in its second round, after the checkpoint was written and before it was committed
    run = Path(whole["run_dir"])
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    keep = next(i for i, line in enumerate(lines) if '"round_committed","round":2' in line)
    (run / "events.jsonl").write_text("".join(lines[:keep]))
    assert call("train", "r.yaml", "--resume", "--json") == 0
    again = result()
    assert again["run_dir"] == whole["run_dir"]
    assert again["digest"] == whole["digest"]
    assert again["bits_per_byte"] == whole["bits_per_byte"]
    assert call("train", "r.yaml", "--resume", "--json") == 0
    assert result()["rounds"] == 2
    assert call("train", "r.yaml", "--resume", "--set", "training.batch_size=3") == 2
    assert "training.batch_size: 2 there, 3 here" in capfd.readouterr().err
    assert call("generate", str(run), "--prompt", "the ", "--max-tokens", "8", "--json") == 0
    assert result()["text"]
    assert call("generate", str(run), "--prompt", "the ", "--round", "9") == 2
    assert call("report", str(run)) == 0


def test_inspect_has_a_line_for_every_file(recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    Path("ada/broken.pdf").write_text("no pdf")
    Path("ada/program.exe").write_text("x")
    assert call("data", "inspect", "ada", "--json") == 0
    files = json.loads(capfd.readouterr().out.splitlines()[-1])["files"]
    assert {Path(file["path"]).name: file["status"] for file in files} == {
        "broken.pdf": "not-a-pdf",
        "program.exe": "unsupported",
        "text.txt": "ok",
    }


def test_every_argument_and_option_has_a_help_text(capfd: pytest.CaptureFixture[str]) -> None:
    def silent(command: click.Command, path: str) -> list[str]:
        found = [f"{path} {one.name}" for one in command.params if not getattr(one, "help", None)]
        inner = command.commands if isinstance(command, click.Group) else {}
        return found + [text for name, one in inner.items() for text in silent(one, f"{path} {name}")]

    assert silent(typer.main.get_command(app), "trfmoe") == []
    assert call("train", "-h") == 0
    assert "not needed with" in capfd.readouterr().out
    assert call("--version") == 0
    assert re.match(r"trfmoe \d+\.\d+\.\d+ with flwr \d", capfd.readouterr().out)


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "('torch', 'flwr', 'transformers', 'wandb')"
    code = f"import sys; import scripts.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
