"""Tests of how long a SuperNode waits between two questions."""

import ast
import inspect
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.corestate import in_memory_corestate as corestate
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from scripts.deploy import prompt_supernode
from scripts.deploy.prompt_supernode import START_S, Waits, allow_spaces, await_start, flowers_own, hasten, main
from tests.places import ROOT


class Node:
    """A SuperNode's loop on a clock of its own."""

    def __init__(self) -> None:
        self.now, self.waited = 0.0, list[float]()
        self.waits = Waits(self._sleep, lambda: self.now)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waited.append(seconds)

    def ask(self, flowers_own: float, until: float, asking: float = 0.0) -> list[float]:
        self.waited = []
        while self.now < until:
            self.now += asking
            self.waits.sleep(flowers_own)
        return self.waited


def test_short_rounds_lose_little_and_long_ones_ask_as_rarely_as_flower() -> None:
    node = Node()
    assert set(node.ask(3.0, 50.0)) == {0.5}
    later = node.ask(3.0, 300.0)
    assert later == sorted(later)
    assert later[-1] <= 0.01 * node.now
    assert set(node.ask(3.0, 1000.0)[1:]) == {3.0}


def test_every_message_begins_anew() -> None:
    node = Node()
    node.ask(3.0, 1000.0)
    assert node.ask(0.5, node.now + 1.0)[0] == pytest.approx(0.5 / 6), "the app is at work"
    assert node.ask(0.5, node.now + 200.0)[-1] == 0.5
    assert node.ask(3.0, node.now + 3.0)[0] == 0.5, "its answer is sent"


def test_a_slow_superlink_is_asked_as_rarely_as_by_flower() -> None:
    assert set(Node().ask(3.0, 40.0, asking=0.4)[1:]) == {3.0}
    assert max(Node().ask(3.0, 40.0, asking=0.1)) == pytest.approx(1.0)


def test_flowers_loops_wait_by_the_function_that_is_replaced() -> None:
    tree = ast.parse(inspect.getsource(start_client_internal))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time"]
    assert {node.attr for node in used} == {"sleep"}
    waits = [ast.unparse(node.args[0]) for node in ast.walk(tree) if isinstance(node, ast.Call) and node.func in used]
    assert sorted(set(waits)) == ["0.5", "3"]


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module such as the one with Flower's loops."""
    module = ModuleType("loops_of_a_test")
    vars(module)["time"] = time
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_only_the_sleep_of_flowers_loops_is_another(loops: ModuleType) -> None:
    assert hasten(loops.__name__)
    assert loops.time.monotonic is time.monotonic
    assert loops.time.sleep is not time.sleep


def test_loops_that_wait_by_something_else_stay_as_they_are(loops: ModuleType) -> None:
    del loops.time
    assert not hasten(loops.__name__)
    assert not hasattr(loops, "time")
    assert not hasten("flwr.there_is_no_such_module")
    for change in (allow_spaces, await_start):
        assert not change(loops.__name__)
        assert not change("flwr.there_is_no_such_module")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Flower's store of tasks on a clock of its own; the function lets seconds go by."""
    passed = [0.0]
    begun = corestate.now()
    monkeypatch.setattr(corestate, "now", lambda: begun + timedelta(seconds=passed[0]))
    monkeypatch.setattr(InMemoryCoreState, "claim_task", InMemoryCoreState.claim_task)  # put back at the end

    def go_by(seconds: float) -> None:
        passed[0] += seconds

    return go_by


def started_task() -> tuple[InMemoryNodeState, int, str]:
    """Returns a node's store, its one task, and the token of the program that was started for it."""
    state = InMemoryNodeState(ObjectStoreFactory().store())
    task = state.create_task(TaskType.CLIENT_APP, run_id=7)
    assert task is not None
    token = state.claim_task(task)
    assert token is not None
    return state, task, token


def test_a_message_has_one_program_however_slowly_that_starts(clock: Callable[[float], None]) -> None:
    assert await_start()
    state, task, token = started_task()
    clock(START_S - 1)
    assert state.get_task_by_token(token) is not None
    assert state.claim_task(task) is None, "no other is started beside it"
    assert state.activate_task(task)
    clock(61)
    assert state.get_task_by_token(token) is None, "one that reported and fell silent is noticed as soon as by Flower"


def test_a_program_that_never_reports_is_started_again(clock: Callable[[float], None]) -> None:
    assert await_start()
    state, task, token = started_task()
    clock(START_S + 1)
    assert state.get_task_by_token(token) is None
    assert state.claim_task(task) not in (None, token)


def test_flower_itself_starts_a_second_program_after_its_interval(clock: Callable[[float], None]) -> None:
    state, task, token = started_task()
    clock(31)
    assert state.get_task_by_token(token) is None, "then this project need not wait for a start any more"
    assert state.claim_task(task) is not None


def test_the_program_is_flowers_own() -> None:
    assert flowers_own().__module__.startswith("flwr.")


@pytest.mark.parametrize("known", [True, False])
def test_another_flower_runs_as_it_is_and_that_is_said(
    known: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> Callable[[], int | None]:
        return lambda: 7

    monkeypatch.setattr(prompt_supernode, "flowers_own", program)
    monkeypatch.setattr(prompt_supernode, "hasten", lambda: known)
    monkeypatch.setattr(prompt_supernode, "allow_spaces", lambda: known)
    monkeypatch.setattr(prompt_supernode, "await_start", lambda: known)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 7
    said = capsys.readouterr().err
    told = [part in said for part in ("rounds begin", "without spaces", "30 seconds to start")]
    assert told == [not known] * 3


LOOP = """
import sys
from flwr.supercore.exit import register_signal_handlers
from flwr.supercore.telemetry import EventType
from flwr.supernode import start_client_internal as loops
from scripts.deploy.prompt_supernode import hasten
assert hasten()
register_signal_handlers(event_type=EventType.RUN_SUPERNODE_LEAVE, exit_message="ended")
print("ready", flush=True)
while True:
    loops.time.sleep(3)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_at_once_and_by_flowers_own_handler(number: signal.Signals, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LOOP], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "ended" in out + err
    assert "Traceback" not in err
    assert time.monotonic() - begun < 5
