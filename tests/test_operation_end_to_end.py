"""An operator's day with a kit on real processes: a run in the background, status, logs, attach, stop, and going on."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.run.simulation import free_port
from server.run_folder.journal import read_events
from tests.conftest import TINY, words
from tests.federation import of_kind
from tests.test_kit_end_to_end import BIN, Scripts, trfmoe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(" " in str(BIN), reason="start scripts refuse a virtual environment below a path with a space"),
]
NAMES = ("ada", "bob", "cyd")
KIT = Path("kit")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a kit of three nodes is running. Its nodes reach the SuperLink without a proxy."""
    port = free_port()
    nodes = [KitNode(name=name) for name in NAMES]
    write_kit(tmp_path / KIT, Coordinator(host="127.0.0.1", port=port, superlink_port=port, nodes=nodes))
    scripts = Scripts(tmp_path)
    scripts.start(tmp_path / KIT / "coordinator" / "start.sh")
    for number, name in enumerate(NAMES):
        folder = tmp_path / "hosts" / name
        shutil.move(tmp_path / KIT / "nodes" / name, folder)
        (folder / "data").mkdir()
        (folder / "data" / "text.txt").write_text(words(number, 4000))
        trfmoe("deploy", "allow", folder, cwd=tmp_path)
    trfmoe("deploy", "register", KIT, cwd=tmp_path)
    for name in NAMES:
        scripts.start(tmp_path / "hosts" / name / "start.sh", TRFMOE_NODE_PORT=str(free_port()))
    rounds = {"num_rounds": 400, "local_steps": 4, "nodes_deadline_s": 60.0, "reply_deadline_s": 300.0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**TINY, "rounds": rounds}))
    yield tmp_path
    left = scripts.stop()
    assert not left, left


class Background:
    """A `trfmoe` command whose output is read while it runs."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def read_to(self, text: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError("\n".join(self.lines))

    def interrupt(self) -> tuple[int, str]:
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Waits for the command to end by itself; returns its exit code and what it still said."""
        rest, _ = self._process.communicate(timeout=60)
        return self._process.returncode, rest


def test_an_operators_day(place: Path) -> None:
    assert "no run is going on" in trfmoe("deploy", "stop", KIT, cwd=place, expect=2)["error"]
    run = Background("deploy", "run", str(KIT), "recipe.yaml", cwd=place)
    run.read_to("round   2/400")
    code, said = run.interrupt()
    assert code == 130
    assert "the run goes on" in said
    assert "trfmoe deploy attach kit" in said
    assert "interrupted" not in said

    refused = trfmoe("deploy", "run", KIT, "recipe.yaml", cwd=place, expect=1)
    assert "is going on" in refused["error"]
    assert "--wait" in refused["error"]

    status = trfmoe("deploy", "status", KIT, cwd=place)
    assert {node["name"]: node["online"] for node in status["nodes"]} == dict.fromkeys(NAMES, True)
    assert all(node["loss"] > 0 for node in status["nodes"])
    allowed = trfmoe("deploy", "allow", "--list", place / "hosts" / "ada", cwd=place)["apps"][0]["app"]
    assert status["runs"][0]["app"] == allowed, "what an operator sees is the hash that owners allow"
    assert all(node["release"].startswith(f"app {allowed[:12]}, torch ") for node in status["nodes"])
    assert [entry["status"] for entry in status["runs"]] == ["running"]
    assert "of 400" in status["runs"][0]["line"]
    folder = Path(status["runs"][0]["run_dir"])

    log = subprocess.run([BIN / "trfmoe", "deploy", "logs", KIT], cwd=place, capture_output=True, text=True, timeout=60)
    assert "TriRedundant: vote majority" in log.stdout

    attached = Background("deploy", "attach", str(KIT), cwd=place)
    attached.read_to("/400")
    stopped = trfmoe("deploy", "stop", KIT, cwd=place)
    attached.read_to("the run was stopped: the operator stopped it after round")
    assert attached.end()[0] == 1
    events = read_events(folder / "events.jsonl")
    ended = of_kind(events, "run_finished")[-1]
    assert (ended["outcome"], ended["rounds"]) == ("stopped", stopped["round"])
    assert of_kind(events, "round_committed")[-1]["round"] == stopped["round"]
    assert (folder / "signatures.jsonl").is_file(), "whoever follows the run to its end signs it"
    assert trfmoe("verify", folder, cwd=place)["notes"]

    again = Background("deploy", "run", str(KIT), "recipe.yaml", "--resume", cwd=place)
    again.read_to(f"resumed after round {stopped['round']}")
    again.read_to("/400")
    again.interrupt()
    kill_superlink(place)
    attached = Background("deploy", "attach", str(KIT), cwd=place)
    before = max(event["round"] for event in of_kind(read_events(folder / "events.jsonl"), "round_committed"))
    attached.read_to(f"round {before + 2:3}/400")
    starts = len(of_kind(read_events(folder / "events.jsonl"), "run_started"))
    assert starts == 2, "the SuperLink came back with its database, so the server app did not even end"

    told = trfmoe("deploy", "stop", KIT, "--now", cwd=place)
    attached.read_to("the run was stopped: the operator stopped it at once")
    attached.end()
    assert runs(place)[-1].startswith("finished")
    verified = trfmoe("verify", folder, "--key", KIT / "coordinator" / "sign.pub", cwd=place)
    assert (verified["outcome"], verified["signed"]) == ("ok", len(read_events(folder / "events.jsonl")))
    assert verified["finished"] is False
    shown = trfmoe("deploy", "status", KIT, cwd=place)
    assert f"round {told['round']} of 400; go on after round {told['round']}" in shown["runs"][-1]["line"]
    assert {node["doing"].endswith("was its last") for node in shown["nodes"]} == {True}


def kill_superlink(place: Path) -> None:
    """Kills it, and returns when it answers again: its start script starts it anew."""
    database = str(place / KIT / "coordinator" / "state.db")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if database in (line := process.cmdline()) and any("flower-superlink" in word for word in line[:3]):
                process.kill()
                process.wait()
    begun = time.monotonic()
    while subprocess.run(
        [BIN / "trfmoe", "deploy", "status", KIT], cwd=place, capture_output=True, timeout=60
    ).returncode:
        assert time.monotonic() - begun < 60, "the SuperLink was not started again"
        time.sleep(0.5)


def runs(place: Path) -> list[Any]:
    return [entry["status"] for entry in trfmoe("deploy", "status", KIT, cwd=place)["runs"]]
