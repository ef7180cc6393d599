"""Real processes: what an owner's files are called and say reaches neither the coordinator's files nor its database."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.deploy.deployment import Deployment
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from tests.conftest import words
from tests.federation import of_kind
from trfmoe_core.config import NodeSettings, Recipe

NAME, TEXT = "Zebrafink", "Quastenflosser"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_over_folders_with_tell_tale_names(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    nodes = []
    for number, name in enumerate(("ada", "bob", "cyd", "dan")):
        home = tmp_path / f"{NAME}-{name}"
        records = home / f"{NAME} records"
        records.mkdir(parents=True)
        (records / f"{NAME}.txt").write_text(f"{TEXT} {words(number, 3000)}")
        (records / f"{NAME}.pdf").write_text(f"%PDF-1.7 {TEXT}")
        (records / f"{NAME}.jsonl").write_text(f'{{"text": "{TEXT}\n')
        data = [str(records)] if name != "ada" else [str(home / "missing")]
        raw = {"name": name, "data": data, "state_dir": str(home / "state"), "cache_dir": str(home / "cache")}
        nodes.append(NodeSettings.model_validate(raw | ({"drill": {"attack": "crash"}} if name == "dan" else {})))
    rounds = {"num_rounds": 2, "local_steps": 4, "nodes_deadline_s": 20.0, "reply_deadline_s": 300.0}
    recipe = tiny_recipe(rounds=rounds).model_copy(update={"nodes": nodes, "num_nodes": 4})
    folder = RunFolder.create(tmp_path / "runs", recipe)
    with Deployment(folder, "process", lambda line: None) as deployment:
        deployment.start()
        deployment.submit()
        end = time.monotonic() + 600
        while not deployment.finished():
            assert time.monotonic() < end
            time.sleep(0.5)
        kit = deployment.scratch / "kit" / "coordinator"
        seen = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
        for path in kit.glob("*.db"):
            with sqlite3.connect(path) as database:
                seen[path] += "\n".join(database.iterdump()).encode()
        assert any(path.suffix == ".db" for path in seen)
    events = read_events(folder.events_path)
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    refused = [event for event in of_kind(events, "node_refused") if event["node"] == "ada"]
    assert "none of its 1 entries of data" in refused[0]["reason"]
    crashed = [event for event in of_kind(events, "node_reply") if event["node"] == "dan"]
    assert any("DrillCrashError" in (event["reason"] or "") for event in crashed)
    own = {folder.path / "logs" / f"{node.name}.log" for node in nodes}
    # The recipe of a deployment on one machine lists the nodes' folders: here the owner is the coordinator.
    theirs = {folder.path / "recipe.yaml"}
    seen |= {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path not in own | theirs}
    assert any(path.name == "superexec.log" for path in seen) and any(path.name == "report.html" for path in seen)
    for needle in (NAME, TEXT):
        for path, content in seen.items():
            at = content.find(needle.encode())
            assert at < 0, (path, content[max(0, at - 300) : at + 300])
    assert NAME in (folder.path / "logs" / "ada.log").read_text(errors="replace")
    for root in (folder.path / "logs", *(tmp_path / f"{NAME}-{node.name}" / "state" for node in nodes)):
        wide = [path for path in root.rglob("*") if path.lstat().st_mode & 0o077]
        assert not wide
