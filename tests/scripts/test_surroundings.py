"""Every subcommand in surroundings that are not as they should be: the same result, or one line and an exit code."""

import io
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
import yaml

from scripts.bench import child
from scripts.commands import deploy
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.experiments import runner
from scripts.main import app, main
from scripts.run import federated_run as federation
from tests.conftest import TINY, words
from trfmoe_core.data.sample import owners as sample
from trfmoe_core.errors import RunError

UNWRITABLE = "/proc"
"""No account may make a folder there, root included."""
Codes = dict[str, int]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its data, a run, and a kit."""
    stage = tmp_path_factory.mktemp("stage")
    nodes = []
    for number, name in enumerate(("no", "1e3", "bücher 你好")):
        (stage / name).mkdir()
        (stage / name / "😀.txt").write_text(words(number, 800) + "\n\n你好 é\n")
        nodes.append({"name": f"n{number}", "data": [str(stage / name)]})
    rounds = {**TINY["rounds"], "num_rounds": 1, "local_steps": 1}  # type: ignore[dict-item]
    recipe = {**TINY, "name": "r", "nodes": nodes, "rounds": rounds}
    (stage / "r.yaml").write_text(yaml.safe_dump(recipe))
    nodes_of_kit = [KitNode(name=name) for name in ("ada", "no", "1e3")]
    write_kit(stage / "kit", Coordinator(host="127.0.0.1", port=1, superlink_port=2, nodes=nodes_of_kit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRFMOE_CACHE", str(stage / "cache"))
        run = ["train", str(stage / "r.yaml"), "--set", f"run_root={stage / 'runs'}"]
        assert call(run) == 0
    return stage


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that takes long is started: it is refused where a command would start it."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise RunError("started")

    def small_sample(root: Path) -> list[Path]:
        (root / "a").mkdir(parents=True)
        return [root / "a"]

    monkeypatch.setattr(federation, "simulate_rounds", refuse)
    monkeypatch.setattr(deploy, "run_deployed", refuse)
    monkeypatch.setattr(child, "_start", refuse)
    monkeypatch.setattr(runner, "conduct", refuse)
    monkeypatch.setattr(sample, "build_sample", small_sample)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def arguments(stage: Path, out: Path) -> dict[str, list[str]]:
    """Returns what every subcommand is called with; what it writes goes below `out`, or where its defaults lead."""
    recipe, run, kit = str(stage / "r.yaml"), str(stage / "runs" / "r-local-001"), stage / "kit"
    texts = str(stage / "bücher 你好")
    return {
        "demo": [],
        "simulate": [recipe],
        "train": [recipe],
        "generate": [run, "--prompt", "你好", "--max-tokens", "2"],
        "evaluate": [run, "--data", str(stage / "nowhere")],
        "export": [run, str(out / "export"), "--round", "99"],
        "import": [str(stage / "nowhere"), recipe],
        "serve": [str(stage / "nowhere")],
        "status": [run],
        "watch": [str(stage / "nowhere")],
        "report": [run],
        "plan": [recipe],
        "drill": [str(stage / "nowhere.yaml")],
        "study": ["as-one", "--text", texts],
        "verify": [run],
        "sign": [run, "--new-key", str(out / "sign.key")],
        "doctor": [recipe],
        "configs ls": [],
        "configs show": [recipe],
        "configs cp": [recipe, str(out / "copy.yaml")],
        "configs check": [recipe],
        "configs reference": ["--page", str(out / "page.md"), "--schema", str(out / "schema.json")],
        "data sample": [str(out / "sample")],
        "data prepare": ["--config", recipe],
        "data inspect": [texts, "--rows", "1"],
        "data tokenizer": [texts, "--out", str(out / "tokenizer"), "--vocab-size", "300"],
        "bench pdf": ["texts"],
        **{
            f"bench {name}": []
            for name in ("vote", "model", "memory", "wire", "federation", "scale", "data", "witness")
        },
        "deploy local": [recipe],
        "deploy run": [str(kit / "coordinator"), recipe],
        **{f"deploy {name}": [str(kit / "coordinator")] for name in ("status", "attach", "stop", "logs")},
        "deploy init": [str(out / "kit"), "--host", "h.test", "--nodes", "a,b,c"],
        "deploy check": [str(kit)],
        "deploy allow": [str(kit / "nodes" / "ada")],
        "deploy disallow": [str(kit / "nodes" / "ada")],
        "deploy add-node": [str(stage / "nowhere"), "dan"],
        "deploy revoke": [str(kit / "coordinator"), "ada"],
        "deploy rotate": [str(kit / "coordinator")],
        "deploy upgrade": [str(kit / "coordinator")],
        "deploy refresh": [str(kit)],
        "runs list": [str(stage / "runs")],
        "runs show": [run],
        "runs compare": [run, run],
        "runs clean": [run],
        "node status": [str(kit / "nodes" / "ada")],
        "node metrics": [str(stage / "nowhere")],
        "node clean": [str(kit / "nodes" / "ada"), "abc"],
        "node rotate": [str(kit / "nodes" / "ada")],
        "node trust": [str(kit / "nodes" / "ada"), str(kit / "coordinator" / "ca.crt")],
        "deploy register": [str(kit / "coordinator"), "--wait", "0"],
    }


def call(given: list[str]) -> int:
    with pytest.raises(SystemExit) as ending:
        main(given)
    assert isinstance(ending.value.code, int)
    return ending.value.code


def walk(stage: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> Codes:
    """Returns every subcommand's exit code; each has written at most one error, in one paragraph, and no traceback."""
    codes = {}
    for name, given in arguments(stage, out).items():
        capfd.readouterr()
        codes[name] = call([*name.split(), *given])
        told = capfd.readouterr().err
        assert "Traceback" not in told, name
        assert told.count("error: ") == (1 if codes[name] in (1, 2, 3) else 0), f"{name}: {told}"
    return codes


@pytest.fixture(scope="module")
def usual() -> Codes:
    """Exit codes where all is well; filled by the first test."""
    return {}


def leaves(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        yield from leaves(command, f"{prefix}{name} ") if hasattr(command, "commands") else [f"{prefix}{name}"]


def test_every_subcommand_is_walked(
    stage: Path, tmp_path: Path, usual: Codes, capfd: pytest.CaptureFixture[str]
) -> None:
    usual.update(walk(stage, tmp_path, capfd))
    assert set(usual) == set(leaves(typer.main.get_command(app)))
    done = {name for name, code in usual.items() if code == 0}
    assert {"train", "generate", "report", "plan", "verify", "data inspect", "deploy init"} <= done


def ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))


def no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent/folder")


def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "socks://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "[::1]")


@pytest.mark.parametrize("spoil", [ascii_only, no_temporary_folder, proxies])
def test_what_does_not_matter_changes_no_result(
    stage: Path,
    tmp_path: Path,
    usual: Codes,
    spoil: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil(monkeypatch)
    codes = walk(stage, tmp_path, capfd)
    assert not usual or codes == usual


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> NoReturn:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("TRFMOE_CACHE")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def unwritable_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", UNWRITABLE)
    monkeypatch.delenv("TRFMOE_CACHE")


def unwritable_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(UNWRITABLE)


def no_temporary_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [UNWRITABLE])


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (no_home, {"simulate", "train", "data prepare", "data inspect", "deploy local"}),
        (unwritable_home, {"simulate", "train", "data prepare", "data inspect", "deploy local"}),
        (unwritable_working_folder, {"demo", "simulate", "train", "deploy run"}),
        (no_temporary_folder_at_all, {"deploy run"}),
    ],
)
def test_what_is_needed_is_told(
    stage: Path,
    tmp_path: Path,
    spoil: Callable[[pytest.MonkeyPatch], None],
    refused: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil(monkeypatch)
    codes = walk(stage, tmp_path, capfd)
    assert all(codes[name] in (1, 2, 3) for name in refused), codes
    assert codes["plan"] == codes["report"] == codes["verify"] == 0


def test_a_working_folder_that_is_gone(stage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        for name, given in arguments(stage, tmp_path).items():
            assert call([*name.split(), *given]) == 3
            assert capfd.readouterr().err.startswith("error: the working folder is gone")
    finally:
        os.chdir(tmp_path)


@pytest.mark.parametrize("name", ["~$notes.txt", "~nobody-by-this-name/x", "~"])
def test_names_that_begin_with_a_tilde(
    stage: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for given in (
        ["data", "inspect", name],
        ["data", "tokenizer", name, "--out", name],
        ["train", str(stage / "r.yaml"), "--pdfs", name, "--dry-run"],
        ["simulate", str(stage / "r.yaml"), "--set", f"nodes.0.data=['{name}']", "--set", f"run_root='{name}/r'"],
        ["simulate", name],
        ["plan", name],
        ["report", name],
        ["doctor", name],
        ["export", name, name],
        ["deploy", "check", name],
        ["train", str(stage / "r.yaml"), "--set", f"data.tokenizer='{name}'"],
    ):
        os.environ["HOME"] = str(tmp_path)
        assert call(given) in (0, 1, 2), given
        assert "Traceback" not in capfd.readouterr().err
    shutil.copy(stage / "no" / "😀.txt", tmp_path / "~$notes.txt")
    assert call(["data", "inspect", "~$notes.txt"]) == 0


PROGRAM = "import sys; from scripts.main import main; main(sys.argv[1:])"


def run(*given: str, shell: str = '"$@"', **options: Any) -> "subprocess.CompletedProcess[str]":
    command = ["bash", "-c", f"set -o pipefail; {shell}", "-", sys.executable, "-c", PROGRAM, *given]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=120, check=False, **options
    )


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ('"$@" --json | true', 141, None),
        ('"$@" > /dev/full', 3, "error: .*No space left on device.*\n"),
        ('"$@" >&- 2>&- <&-', 0, ""),
    ],
)
def test_standard_output_that_nobody_takes(stage: Path, shell: str, code: int, told: str | None) -> None:
    done = run("report", str(stage / "runs" / "r-local-001"), shell=shell, cwd="/")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert told is None or re.fullmatch(told, done.stderr)


def test_a_disk_that_takes_nothing(stage: Path, tmp_path: Path) -> None:
    """A limit of nothing on the size of files stands for a full disk: it fails in the middle of a write."""

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    environment = {**os.environ, "TRFMOE_CACHE": str(tmp_path / "cache")}
    done = run("data", "inspect", str(stage / "no"), cwd=tmp_path, env=environment, preexec_fn=full)
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1)
    assert "Traceback" not in done.stderr
