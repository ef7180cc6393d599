"""The owner's own program: code that is not allowed is neither unpacked nor imported, whatever the run is called."""

import hashlib
import importlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.supernode.runtime import run_clientapp as runner

from scripts.commands.doctor import orphans
from scripts.deploy import node_clientapp
from scripts.deploy.allowed_code import allow_app
from scripts.processes.control import app_bundle, app_hash
from scripts.run.simulation import app_folder
from tests.places import ROOT


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Flower's client with its parts replaced, so that it is seen what would have been done."""
    seen: dict[str, Any] = {"installed": [], "named": tmp_path / "app"}

    def install(content: bytes, **options: object) -> Path:
        seen["installed"].append(content)
        return tmp_path / "app"

    fab = SimpleNamespace(hash_str="0" * 64)
    monkeypatch.setattr(
        runner,
        "pull_task_input",
        lambda client: ("message", "context", SimpleNamespace(fab_id="a/b", fab_version="1"), fab),
    )
    monkeypatch.setattr(runner, "install_from_fab", install)
    monkeypatch.setattr(runner, "get_project_dir", lambda *names: seen["named"])
    before = signal.getsignal(signal.SIGTERM)
    node_clientapp.check(tmp_path / "allowed_apps.txt")
    yield seen
    signal.signal(signal.SIGTERM, before)


def run_app(content: bytes) -> Any:
    message, context, _, _ = runner.pull_task_input(None)  # type: ignore[arg-type]
    assert (message, context) == ("message", "context")
    return runner.install_from_fab(content, skip_prompt=True)  # type: ignore[attr-defined]


def test_unknown_code_is_not_unpacked(tmp_path: Path, flower: dict[str, Any]) -> None:
    with pytest.raises(node_clientapp.RefusedError, match=hashlib.sha256(b"evil").hexdigest()):
        run_app(b"evil")
    (tmp_path / "allowed_apps.txt").write_text(f"# {hashlib.sha256(b'evil').hexdigest()} is not allowed\n")
    with pytest.raises(node_clientapp.RefusedError, match="trfmoe deploy allow"):
        run_app(b"evil")
    assert flower["installed"] == []


def test_allowed_code_runs(tmp_path: Path, flower: dict[str, Any]) -> None:
    allow_app(tmp_path, hashlib.sha256(b"good").hexdigest(), "by hand")
    assert run_app(b"good") == tmp_path / "app"
    assert flower["installed"] == [b"good"]


def test_a_run_cannot_name_another_bundle_than_it_brings(tmp_path: Path, flower: dict[str, Any]) -> None:
    allow_app(tmp_path, hashlib.sha256(b"good").hexdigest(), "")
    flower["named"] = tmp_path / "installed" / "earlier"
    with pytest.raises(node_clientapp.RefusedError, match="not the bundle that came with it"):
        run_app(b"good")


def test_termination_becomes_an_answer(tmp_path: Path, flower: dict[str, Any]) -> None:
    allow_app(tmp_path, hashlib.sha256(b"good").hexdigest(), "")
    run_app(b"good")
    with pytest.raises(node_clientapp.TerminatedError):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # the second is ignored, so that the answer gets out


@pytest.mark.slow
def test_the_bundle_is_the_one_that_flower_would_make() -> None:
    assert app_bundle(app_folder()) == build_fab_from_disk(app_folder())


def test_the_hash_is_of_the_code_alone() -> None:
    assert app_hash(app_folder()) == hashlib.sha256(app_bundle(app_folder())).hexdigest()
    with zipfile.ZipFile(io.BytesIO(app_bundle(app_folder()))) as bundle:
        names = bundle.namelist()
    assert "server/app.py" in names and not [name for name in names if name.startswith("scripts")]


def test_nothing_of_the_project_is_imported_before_the_app() -> None:
    code = (
        "import sys, scripts.deploy.node_clientapp\n"
        "packages = ('clients', 'server', 'strategies', 'trfmoe_core')\n"
        "ours = {name for name in sys.modules if name.split('.')[0] in packages}\n"
        "sys.exit(str(ours) if ours else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_memory_beyond_the_owners_limit_is_an_error_of_the_app(tmp_path: Path) -> None:
    node_file = tmp_path / "node.yaml"
    node_file.write_text("name: n\ndata: [d]\nlimits: {memory_mb: 300}\n")
    code = (
        "import sys; from pathlib import Path; from scripts.deploy.node_clientapp import limit_memory\n"
        "limit_memory(Path(sys.argv[1])); kept = bytearray(50 << 20)\n"
        "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(node_file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr


def test_another_release_of_flower_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRFMOE_NODE_FILE", str(tmp_path / "node.yaml"))
    monkeypatch.delattr(runner, "install_from_fab")
    with pytest.raises(SystemExit, match="cannot be checked"):
        node_clientapp.main()


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/home/erika/befunde.pdf"),
        ValueError("Erika Mustermann"),
        type("Erika Mustermann", (Exception,), {})("/home/erika"),
        KeyError("/home/erika"),
    ],
)
def test_flower_tells_the_coordinator_no_text_of_an_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "Error", runner.Error)  # type: ignore[attr-defined]
    node_clientapp.keep_errors_home()
    try:
        raise error
    except Exception as caught:
        told = runner.Error(code=2, reason=f"{type(caught)}:<'{caught}'>")  # type: ignore[attr-defined]
    assert "rika" not in str(told.reason) and "log says more" in str(told.reason)


def test_a_refusal_of_the_owners_program_says_what_and_not_where(
    tmp_path: Path, flower: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "Error", runner.Error)  # type: ignore[attr-defined]
    node_clientapp.keep_errors_home()
    try:
        run_app(b"evil")
    except node_clientapp.RefusedError as caught:
        told = runner.Error(code=2, reason=str(caught))  # type: ignore[attr-defined]
        assert str(tmp_path) in str(caught)
    assert hashlib.sha256(b"evil").hexdigest() in str(told.reason) and str(tmp_path) not in str(told.reason)


CLIENT = """
import signal, sys, time
from scripts.deploy.node_clientapp import end_with_the_supernode
signal.signal(signal.SIGINT, signal.SIG_IGN)
end_with_the_supernode()
print("ready", flush=True)
time.sleep(60)
"""
EXECUTOR = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[3]])
time.sleep(60)
"""
SUPERNODE = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], "--parent-pid", str(os.getpid()), sys.argv[2]])
time.sleep(60)
"""


def test_a_client_ends_with_its_supernode_though_nobody_reaps_that() -> None:
    started = subprocess.Popen(
        [sys.executable, "-c", SUPERNODE, EXECUTOR, CLIENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    supernode = psutil.Process(started.pid)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    executor, client = supernode.children(recursive=True)
    assert [orphan.pid for orphan in orphans() if orphan.pid in (executor.pid, client.pid)] == []
    supernode.kill()
    try:
        end = time.monotonic() + 10
        while client.status() != psutil.STATUS_ZOMBIE:  # the executor reaps nobody
            assert time.monotonic() < end, "it would deliver its result to a SuperNode that is gone"
            time.sleep(0.05)
        assert executor.pid in [orphan.pid for orphan in orphans()]
    finally:
        executor.kill()
        started.wait()


def test_a_message_ends_as_flower_ends_it_but_the_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("register_signal_handlers", "start_parent_process_monitor", "flwr_exit"):
        monkeypatch.setattr(runner, name, getattr(runner, name))
    monkeypatch.setattr(sys, "argv", ["flwr-clientapp"])
    ended: list[str] = []

    def flower() -> None:
        runner.start_parent_process_monitor(1)  # type: ignore[attr-defined]
        token = sys.argv[-1]
        runner.register_signal_handlers(  # type: ignore[attr-defined]
            event_type="leave", exit_message="", exit_handlers=[lambda: ended.append(token)]
        )
        if token == "third":
            with pytest.raises(node_clientapp.TerminatedError):
                os.kill(os.getpid(), signal.SIGTERM)
        runner.flwr_exit(code=0, event_type="leave")  # type: ignore[attr-defined]

    monkeypatch.setattr(node_clientapp, "flwr_clientapp", flower)
    message = node_clientapp.OneMessage()
    assert [message.answer(["--token", token]) for token in ("first", "second", "third")] == [True, True, False]
    assert ended == ["first", "second", "third"], "every token's task is told its end, once"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_another_run_gets_its_own_code_and_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    folders = [tmp_path / "one", tmp_path / "other"]
    app = node_clientapp.OneApp()
    told = []
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "an_app_of_this_test.py").write_text(f"number = {number}\n")
        for _ in range(2):
            app.take(number, "f" * 64)
            app.installed(folder)
            sys.path[:0] = [str(folder)] if str(folder) not in sys.path else []
            told.append((importlib.import_module("an_app_of_this_test").number, app.changed))
    sys.modules.pop("an_app_of_this_test")
    assert told == [(0, False), (0, False), (1, True), (1, True)]
