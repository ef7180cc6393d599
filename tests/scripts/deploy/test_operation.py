"""What an operator is told of nodes and of a SuperLink that is down: the reason, and what follows or helps."""

import json
from pathlib import Path

import pytest

from scripts.commands import deploy_runs
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.deploy.operation import Operation, node_rows, run_line, strikes_text
from scripts.main import main
from scripts.processes.control import Control, NodeState, RunState
from scripts.run.simulation import free_port
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from strategies.membership.reputation import Reputation
from tests.scripts.journal import events, write_journal
from trfmoe_core.config import Recipe, ReputationConfig
from trfmoe_core.config.yaml_text import dump_yaml, load_yaml


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    nodes = [KitNode(name=name) for name in ("alice", "bob", "carol")]
    write_kit(tmp_path / "kit", Coordinator(host="127.0.0.1", port=1, superlink_port=free_port(), nodes=nodes))
    return tmp_path / "kit"


@pytest.mark.parametrize(
    "command", [["status"], ["attach"], ["stop"], ["logs"], ["upgrade"], ["revoke", "bob"], ["register", "--wait", "0"]]
)
def test_a_superlink_that_is_down_is_one_line_with_the_command_that_starts_it(
    kit: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["deploy", command[0], str(kit), *command[1:]])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert "does not answer" in line
    start = line.partition("start it: ")[2].partition(",")[0]
    assert Path(start).samefile(kit / "coordinator" / "start.sh")


def test_strikes_say_what_they_are_for_and_what_follows() -> None:
    reputation = Reputation(ReputationConfig(strikes=2, cool_off_rounds=3))
    reputation.observe({"bob": "silent"})
    said = strikes_text(reputation.state()["bob"], 2)
    assert said == "strike 1 of 2: sent no usable answer; one good round takes them away"
    reputation.observe({"bob": "alone"})
    assert strikes_text(reputation.state()["bob"], 2).startswith("strike 2 of 2: stood alone in most of its votes")
    reputation.quarantine("bob", 5)
    assert strikes_text(reputation.state()["bob"], 2) == "sat out, or sits out, until round 9"
    reputation.observe({"ada": "good"})
    assert strikes_text(reputation.state()["ada"], 2) == ""


def test_a_node_shows_the_hash_that_its_owner_allows(kit: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Recipe())
    made = [{**event, "versions": {"torch": "2.0"}} if event["event"] == "node_joined" else event for event in events()]
    write_journal(folder.path, made)
    (folder.checkpoints_path / "round-000003").mkdir(parents=True)
    state = {"seating": {"reputation": {"carol": {"strikes": 1, "last": "alone", "out_until": None, "suspect": False}}}}
    for path in folder.checkpoints_path.iterdir():
        (path / "state.json").write_text(json.dumps(state))
    rows = node_rows(Operation.of(kit), {"alice": NodeState("online")}, folder, "0123456789abcdef")
    assert {row.release for row in rows} == {"app 0123456789ab, torch 2.0"}
    assert [row.strikes for row in rows] == [0, 0, 1]


def test_nobody_works_on_a_run_that_nobody_runs(kit: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Recipe())
    made = [{**event, "versions": {}} if event["event"] == "node_joined" else event for event in events(finished=False)]
    write_journal(folder.path, [{**event, "num_rounds": 9} for event in made if event.get("round") != 3])
    (folder.checkpoints_path / "round-000002").mkdir(parents=True)
    (folder.checkpoints_path / "round-000002" / "state.json").write_text("{}")
    history = RunHistory(read_events(folder.events_path))
    assert "left" in run_line(history)
    assert run_line(history, active=False) == "round 2 of 9, outvoted: carol(3)"
    operation = Operation.of(kit)
    assert {row.doing for row in node_rows(operation, {}, folder)} == {"round 2: accepted"}
    assert {row.doing for row in node_rows(operation, {}, folder, active=False)} == {"round 2 was its last"}


def test_a_run_goes_on_although_nodes_have_come_or_gone_since(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("name: many\n")
    monkeypatch.setattr(deploy_runs, "_await_turn", lambda *_: None)
    followed: list[RunFolder] = []
    monkeypatch.setattr(deploy_runs, "_follow", lambda folder, *_: followed.append(folder))
    main_of("deploy", "run", kit, "recipe.yaml")
    path = kit / "coordinator" / "coordinator.yaml"
    for changed in (4, 5):
        nodes = [{"name": f"node-{number}", "zone": None} for number in range(changed)]
        path.write_text(dump_yaml({**load_yaml(path.read_text()), "nodes": nodes}))
        main_of("deploy", "run", kit, "recipe.yaml", "--resume")
        main_of("deploy", "run", kit, followed[0].path / "recipe.yaml", "--run-dir", followed[0].path)
    assert {folder.path for folder in followed} == {followed[0].path}
    assert [folder.recipe.num_nodes for folder in followed] == [3] * 5
    moved = followed[0].path.rename(tmp_path / "elsewhere")
    main_of("deploy", "run", kit, moved / "recipe.yaml", "--run-dir", moved, "--set", "run_root=/proc/nowhere")
    assert followed.pop().path == moved, "a backup that was restored in another place"
    main_of("deploy", "run", kit, "recipe.yaml")
    assert followed[-1].recipe.num_nodes == 5, "a new run has the nodes that there are"


def test_a_run_whose_folder_is_gone_does_not_block_the_kit(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(Control, "runs", lambda _: {7: RunState("running", "", tmp_path / "gone", "a" * 64)})
    monkeypatch.setattr(Control, "nodes", lambda _: {})
    monkeypatch.setattr(Control, "stop", lambda _, run_id: stopped.append(run_id))
    main_of("deploy", "status", kit)
    told = capsys.readouterr().out
    assert "its folder is gone; if it has moved, go on with: trfmoe deploy run " in told
    with pytest.raises(SystemExit) as ended:
        main(["deploy", "attach", str(kit)])
    said = capsys.readouterr().err
    assert (ended.value.code, "--now` ends it" in said) == (2, True)
    main_of("deploy", "stop", kit, "--now")
    assert stopped == [7]


def main_of(*given: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in given])
    assert ended.value.code == 0
