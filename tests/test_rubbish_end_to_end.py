"""Real processes with TLS and keys, and a node that answers only with rubbish: the run ends well and names it."""

import contextlib
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.deploy.deployment import Deployment
from scripts.processes.guard import processes_of
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.verify import verify_run
from tests.conftest import words
from tests.federation import of_kind
from trfmoe_core.config import Recipe

ROUNDS = 5
PROGRAM = Path(__file__).with_name("hostile_clientapp.py")


def hostile(folder: Path, first: str) -> list[str]:
    """Returns a launcher of a SuperNode whose clients answer with rubbish, from one kind of message on."""
    folder.mkdir()
    program = folder / "flwr-clientapp"
    settings = f'HOSTILE_FROM={first} HOSTILE_STATE="{folder / "answered"}"'
    program.write_text(f'#!/bin/sh\n{settings} exec "{sys.executable}" -P "{PROGRAM}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return ["sh", "-c", 'PATH="$0:$PATH"; export PATH; exec "$@"', str(folder)]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("first", ["train", "describe"])
def test_five_rounds_of_rubbish(tiny_recipe: Callable[..., Recipe], tmp_path: Path, first: str) -> None:
    nodes = [node.model_dump(mode="json") for node in tiny_recipe().nodes]
    if first == "describe":  # three must remain, each expert being on three
        (tmp_path / "texts" / "dan").mkdir()
        (tmp_path / "texts" / "dan" / "text.txt").write_text(words(7, 4000))
        nodes.append(nodes[0] | {"name": "dan", "data": [str(tmp_path / "texts" / "dan")]})
    rounds = {"num_rounds": ROUNDS, "local_steps": 2, "nodes_deadline_s": 90.0, "reply_deadline_s": 120.0}
    recipe = tiny_recipe(rounds=rounds, nodes=nodes).resolved(Path("/"))
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    launchers = {"cyd": hostile(tmp_path / "hostile", first)}
    told: list[str] = []
    with Deployment(folder, "process", told.append, launchers=launchers, unchecked=["cyd"]) as deployment:
        scratch = deployment.scratch
        deployment.start()
        deployment.submit()
        end = time.monotonic() + 1200
        while not deployment.finished():
            assert time.monotonic() < end, told
            time.sleep(0.5)
    events = read_events(folder.events_path)
    with contextlib.suppress(OSError):
        sys.stderr.write("\n".join(e["reason"] for e in events if e.get("node") == "cyd" and e.get("reason")) + "\n")
    assert len(of_kind(events, "run_started")) == 1, "the server app never died"
    assert [event["round"] for event in of_kind(events, "round_committed")] == list(range(1, ROUNDS + 1))
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    dropped = [event for event in of_kind(events, "node_reply") if event["status"] == "dropped"]
    refused = of_kind(events, "node_refused")
    if first == "train":
        assert not refused
        assert {event["node"] for event in dropped} == {"cyd"}
        assert sorted(event["round"] for event in dropped) == [1, 2, 3, 4, 5, 5]
    else:
        assert {event["node"] for event in refused} == {"cyd"}
        assert not dropped
    assert not verify_run(folder).problems
    assert folder.events_path.stat().st_size < 10**6
    assert not processes_of(scratch)
