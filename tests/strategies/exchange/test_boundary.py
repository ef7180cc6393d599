"""What one message can raise is its node's; what is the coordinator's own passes through."""

import errno
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError

from strategies.exchange.boundary import LONGEST_REASON, boundary, plain
from strategies.exchange.in_flight import Arrival, Clock, InFlight, Pending
from strategies.membership.lost_requests import Pings
from trfmoe_core.errors import RunError, RunFolderError, WireError

THEIRS: list[Exception, RunError("x"),
] = [
    WireError("said so"), ValueError("x"), KeyError("k" * 10**6), TypeError(), IndexError(), AttributeError("a"),
    RecursionError(), AssertionError(), RuntimeError("[enforce fail at alloc_cpu.cpp]"), OverflowError(),
    StopIteration(), EOFError(), ArithmeticError(), DecodeError("Error parsing message"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), json.JSONDecodeError("no", "x", 0), OSError("odd"),
    OSError(errno.EINVAL, "cannot mmap an empty file"), ExceptionGroup("many", [ValueError("\x1b[2J")]),
]  # fmt: skip
OURS: list[BaseException] = [
    MemoryError(), KeyboardInterrupt(), SystemExit(), RunFolderError("x"), ConnectionResetError(),
    TimeoutError(), httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), RunNotRunningException("stopped"),
]  # fmt: skip
DISK = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM]


def names(errors: Iterable[BaseException]) -> list[str]:
    return [f"{number}-{type(error).__name__}" for number, error in enumerate(errors)]


class Raising:
    """A grid on which the answer to one message raises, as often as it is asked for."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.asked = error, 0
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

    def push_messages(self, messages: list[Message]) -> list[str]:
        return [f"to {message.metadata.dst_node_id}" for message in messages]

    def pull_messages(self, ids: list[str]) -> list[Message]:
        if ids == ["to 1"]:
            self.asked += 1
            raise self.error
        return []


def receive(grid: Any, label: int = 3) -> tuple[InFlight, list[Arrival]]:
    exchange = InFlight(grid=grid)
    for node_id, node in ((1, "ada"), (2, "bob")):
        exchange.send(node, Message(RecordDict(), node_id, MessageType.TRAIN), 3)
    return exchange, list(exchange.receive(label, 0.0, "no time"))


@pytest.mark.parametrize("error", THEIRS, ids=names(THEIRS))
def test_what_pulling_raises_is_the_nodes_and_it_is_not_asked_again(error: Exception) -> None:
    grid = Raising(error)
    exchange, arrivals = receive(grid)
    assert [(arrival.node, arrival.kind) for arrival in arrivals] == [("ada", "broken"), ("bob", "silent")]
    assert 0 < len(arrivals[0].reason) <= LONGEST_REASON
    assert arrivals[0].reason.isprintable()
    list(exchange.receive(3, 0.0, "no time"))
    assert grid.asked == 1
    assert exchange.busy("ada") is None


def test_an_answer_to_a_ping_that_cannot_be_read_frees_nobody_and_is_told() -> None:
    told: list[dict[str, Any]] = []
    grid: Any = Raising(ValueError("odd"))
    pings = Pings(lambda kind, **fields: told.append({"kind": kind, **fields}), Clock())
    busy = {"ada": Pending(node="ada", node_id=1, round=3)}
    assert pings.freed(grid, busy) == set()
    assert pings.freed(grid, busy) == set()
    assert [(event["kind"], event["node"], event["round"], event["status"]) for event in told] == [
        ("node_reply", "ada", 3, "dropped")
    ]
    assert "odd" in told[0]["reason"]


def test_what_is_broken_and_late_is_late() -> None:
    grid = Raising(ValueError("odd"))
    exchange, _ = InFlight(grid=grid), None  # type: ignore[arg-type]
    exchange.send("ada", Message(RecordDict(), 1, MessageType.TRAIN), 2)
    exchange.send("bob", Message(RecordDict(), 2, MessageType.TRAIN), 3)
    late, silent = exchange.receive(3, 0.0, "no time")
    assert (late.node, late.kind, late.round) == ("ada", "late", 2)
    assert "an answer to round 2 in round 3: " in late.reason
    assert silent.kind == "silent"


@pytest.mark.parametrize("error", OURS, ids=names(OURS))
def test_what_is_the_coordinators_own_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        receive(Raising(error))


@pytest.mark.parametrize("number", DISK)
def test_the_coordinators_disk_and_limits_end_the_run_with_a_remedy(number: int) -> None:
    with pytest.raises(RunFolderError, match=r"/x/spill: .*--resume"), boundary():
        raise OSError(number, "trouble", "/x/spill")


def test_a_reason_is_one_short_line() -> None:
    assert plain("a\x1b[31m\r\n\tb\u202e\ud800\x00c") == "a[31m bc"
    assert plain("x" * 10**6) == "x" * (LONGEST_REASON - 3) + "..."
    assert plain("\x1b" * 10**6) == ""
    assert plain("für Märta, 東京") == "für Märta, 東京"
