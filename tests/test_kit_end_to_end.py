"""A kit as its owners use it: the coordinator behind nginx, nodes by start scripts, one whose owner allows nothing."""

import json
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

from scripts.deploy.connection_check import port_open
from scripts.run.simulation import free_port
from server.run_folder.journal import read_events
from tests.conftest import TINY, words
from tests.federation import of_kind
from tests.scripts.deploy.test_nginx import NGINX, await_port, start_nginx

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def trfmoe(*arguments: str | Path, cwd: Path, expect: int | None = 0) -> dict[str, Any]:
    command = [str(BIN / "trfmoe"), *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert expect is None or done.returncode == expect, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


class Scripts:
    """Start scripts that run in the background, and all that they started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[psutil.Popen] = []

    def start(self, script: Path, **environment: str) -> psutil.Popen:
        with (self.folder / f"{script.parent.name}.log").open("ab") as log:
            environment = {**os.environ, "TRFMOE_VENV": str(BIN.parent), **environment}
            process = psutil.Popen([str(script)], env=environment, stdout=log, stderr=log, cwd="/")
        self.started.append(process)
        return process

    def stop(self) -> list[psutil.Process]:
        running = [process for process in self.started if lives(process)]
        family = [child for process in running for child in process.children(True)]
        for process in running:
            process.send_signal(signal.SIGTERM)
        psutil.wait_procs([*self.started, *family], timeout=30)
        left = [process for process in family if lives(process)]
        for process in left:
            process.kill()
        return left


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    scripts = Scripts(tmp_path)
    yield scripts
    left = scripts.stop()
    assert not left, left


@pytest.mark.skipif(
    " " in str(BIN), reason="a kit's start scripts refuse a virtual environment below a path with a space"
)
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")
def test_three_commands_a_node_and_a_run_through_the_proxy(tmp_path: Path, scripts: Scripts) -> None:
    port, superlink_port = free_port(), free_port()
    kit = tmp_path / "a kit"
    ports = ("--port", str(port), "--superlink-port", str(superlink_port))
    names = ("--nodes", "ada,bob,cyd,dan", "--zones", "n,s,s,n")
    trfmoe("deploy", "init", kit, "--host", "127.0.0.1", *names, *ports, cwd=tmp_path)
    coordinator = kit / "coordinator"
    scripts.start(coordinator / "start.sh")
    nginx = start_nginx(coordinator / "nginx.conf", tmp_path)
    try:
        await_port(port)
        for number, name in enumerate(("ada", "bob", "cyd", "dan")):
            folder = tmp_path / "hosts" / name
            shutil.move(kit / "nodes" / name, folder)
            (folder / "data").mkdir()
            (folder / "data" / "text.txt").write_text(words(number, 4000))
            if name != "dan":
                trfmoe("deploy", "allow", folder, cwd=tmp_path)
            await_registered(folder, tmp_path)
            told = trfmoe("deploy", "check", folder, cwd=tmp_path, expect=21 if name == "dan" else 0)
            texts = [finding["text"] for finding in told["findings"] if finding["level"] == "ok"]
            assert any("the control interface is closed" in text for text in texts)
            assert any("knows this node's key" in text for text in texts)
            scripts.start(folder / "start.sh", TRFMOE_NODE_PORT=str(free_port()))
        recipe = tmp_path / "recipe.yaml"
        rounds = {"num_rounds": 2, "local_steps": 4, "nodes_deadline_s": 60.0, "reply_deadline_s": 300.0}
        recipe.write_text(yaml.safe_dump({**TINY, "rounds": rounds}))
        outcome = trfmoe("deploy", "run", coordinator, recipe, cwd=tmp_path)
        assert (outcome["outcome"], outcome["rounds"]) == ("completed", 2)
        events = read_events(Path(outcome["run_dir"]) / "events.jsonl")
        assert {event["node"] for event in of_kind(events, "node_joined")} == {"ada", "bob", "cyd"}
        refusal = of_kind(events, "node_refused")[0]["reason"]
        assert "has not allowed the app" in refusal
        assert "has not allowed the app" in (tmp_path / "dan.log").read_text()
        assert not list((tmp_path / "hosts" / "dan").glob("flwr/apps/*")), "the refused code was unpacked"
        assert port_open("127.0.0.1", superlink_port)
        bob = tmp_path / "hosts" / "bob"
        told = trfmoe("node", "status", bob, cwd=tmp_path)
        assert told["registration"] == "known"
        assert (told["runs"][0]["rounds"], told["runs"][0]["accepted"]) == ([1, 2], [1, 2])
        (heads,) = bob.glob("state/*/bob/heads.jsonl")
        told = trfmoe("verify", outcome["run_dir"], "--key", bob / "sign.pub", "--heads", heads, cwd=tmp_path)
        assert any("3 noted heads fit" in note for note in told["notes"])
        assert any(
            note.startswith(f"entries 0 to {len(events) - 1} were signed by this key on ") for note in told["notes"]
        )
    finally:
        nginx.terminate()
        nginx.wait(10)


def await_registered(folder: Path, cwd: Path) -> None:
    for _ in range(30):
        told = trfmoe("deploy", "check", folder, cwd=cwd, expect=None)
        if any("knows this node's key" in finding["text"] for finding in told["findings"]):
            return
        time.sleep(1)
    raise AssertionError(told)
