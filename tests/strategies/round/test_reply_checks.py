"""Every check on what a node sends, one violation a round through real nodes and strategy: dropped and named."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord
from flwr.server.superlink.linkstate import utils as superlink

from clients.attacks.reply_editing import parcel_blocks, with_blocks
from scripts.experiments.in_process import InProcessGrid
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.exchange.messages import TrainReply, pack, pack_buffers, read_header, read_parcel
from tests.federation import grid_of, of_kind, run_recipe
from tests.strategies.exchange.test_in_flight import even, play, recipe_for
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError
from trfmoe_core.wire import Parcel

LIAR = 3


def changed(message: Message, change: Callable[[Parcel], Parcel]) -> None:
    """Puts another parcel, with its index, in a reply."""
    reply = read_header(message, TrainReply)
    parcel = change(read_parcel(message, reply.index or "", 1 << 40))
    content = pack(reply.model_copy(update={"index": parcel.index}), pack_buffers(parcel))
    for key in list(message.content):
        message.content[key] = content[key]


def entry(edit: Callable[[dict[str, Any]], object]) -> Callable[[Message], None]:
    """Returns a violation that edits the index's first entry."""

    def change(parcel: Parcel) -> Parcel:
        tree = json.loads(parcel.index)
        edit(tree["entries"][0])
        return Parcel(json.dumps(tree), parcel.buffers)

    return lambda message: changed(message, change)


def values(factor: float) -> Callable[[Message], None]:
    """Returns a violation that multiplies all updates, with digests that fit."""
    return lambda message: changed(
        message, lambda parcel: with_blocks(parcel, {k: v * factor for k, v in parcel_blocks(parcel).items()})
    )


def without_last(parcel: Parcel) -> Parcel:
    tree = json.loads(parcel.index)
    last = tree["entries"].pop()
    return Parcel(json.dumps(tree), (bytes(parcel.buffers[0])[: -last["size"]],))


def unknown_key(message: Message) -> None:
    tree = json.loads(str(message.content["header"]["json"]))
    message.content["header"] = ConfigRecord({"json": json.dumps(tree | {"weight": 10**9})})


def other_sender(message: Message) -> None:
    message.metadata.__dict__["_src_node_id"] = 987


def inside(**values: object) -> Callable[[Message], None]:
    """Returns a violation that writes into a message what its class forbids."""

    def change(message: Message) -> None:
        message.__dict__.update(values)

    return change


def told(key: str, value: object) -> Callable[[Message], None]:
    return lambda message: message.metadata.__dict__.update({key: value})


def beside(message: Message) -> None:
    message.content["more"] = MetricRecord({"x": 1.0})


def flower(code: int, text: str) -> Callable[[Message], None]:
    return inside(_content=None, _error=Error(code, text))


VIOLATIONS: dict[str, tuple[Callable[[Message], None], str, str]] = {
    "unknown key": (unknown_key, "dropped", "no TrainReply: weight: Extra inputs"),
    "unknown key of a block": (entry(lambda e: e.update(rank=1)), "dropped", "index"),
    "missing block": (lambda m: changed(m, without_last), "dropped", "blocks that the node holds are missing"),
    "unknown block": (entry(lambda e: e.update(block="layers.9.experts.9")), "dropped", "layers.9.experts.9"),
    "wrong shape": (entry(lambda e: e["tensors"][0].__setitem__(1, [3, 7])), "dropped", "shape"),
    "wrong dtype": (entry(lambda e: e.update(dtype="float64")), "dropped", "float64"),
    "byte count": (entry(lambda e: e.update(size=e["size"] + 4)), "dropped", "bytes"),
    "digest": (entry(lambda e: e.update(sha256="0" * 64)), "dropped", "digest"),
    "nan": (values(float("nan")), "dropped", "not finite"),
    "inf": (values(float("inf")), "dropped", "not finite"),
    "absurd norm": (values(1e12), "dropped", "no training goes so far"),
    "empty buffer": (lambda m: changed(m, lambda p: Parcel(p.index, (*p.buffers, b""))), "dropped", "is empty"),
    "another record": (beside, "dropped", "'more' besides"),
    "no content": (inside(_content=None), "dropped", "is empty"),
    "content of another kind": (inside(_content=7), "dropped", "cannot be handled"),
    "an error": (inside(_content=None, _error=Error(2, "\x1b" + "no" * 10**6)), "missing", "the node answers: nono"),
    "gone": (flower(5, superlink.NODE_UNAVAILABLE_ERROR_REASON), "missing", "went offline before it answered"),
    "no request": (flower(3, superlink.MESSAGE_UNAVAILABLE_ERROR_REASON), "missing", "no longer has the request"),
    "no answer": (flower(4, superlink.REPLY_MESSAGE_UNAVAILABLE_ERROR_REASON), "missing", "was lost on the way"),
    "a crash": (flower(8, "ClientApp stopped responding."), "missing", "its client ended without an answer"),
    "no owner's leave": (flower(2, "refused: the owner has not"), "missing", "the node answers: the owner has not"),
    "no reason": (flower(2, ""), "missing", "the node answers: error 2, and nothing more"),
    "another type": (told("_message_type", "query"), "dropped", "is of type 'query', and 'train' was asked"),
    "another message": (told("_reply_to_message_id", "0" * 64), "dropped", "names another message"),
    "a sender that is no number": (told("_src_node_id", "x" * 10**6), "missing", "which was not asked"),
    "another sender": (other_sender, "missing", "comes from Flower's node 987, which was not asked"),
}


def test_one_violation_a_round_is_dropped_and_named_and_the_run_goes_on(tiny_recipe: Callable[..., Recipe]) -> None:
    violations = list(VIOLATIONS.values())

    def tamper(node_id: int, message: Message) -> Message:
        if node_id == LIAR and message.metadata.message_type == MessageType.TRAIN:
            violations[read_header(message, TrainReply).round - 1][0](message)
        return message

    rounds = {"num_rounds": len(violations), "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    _, events = run_recipe(tiny_recipe(rounds=rounds), tamper)
    replies = [e for e in of_kind(events, "node_reply") if e["node"] == "cyd" and e["round"] and "reason" in e]
    assert [event["round"] for event in replies] == list(range(1, len(violations) + 1))
    for name, (_, status, reason), event in zip(VIOLATIONS, violations, replies, strict=True):
        assert event["status"] == status, (name, event)
        assert reason in event["reason"], (name, event["reason"])
        assert len(event["reason"]) <= 300
        assert "Unavailable" not in event["reason"]
    for verdict in (verdict for event in of_kind(events, "verdicts") for verdict in event["verdicts"]):
        assert set(verdict["accepted"]) <= {"ada", "bob"}
        assert verdict["invalid"] + verdict["missing"] == ["cyd"]
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_a_block_that_the_node_does_not_hold_is_dropped(tiny_recipe: Callable[..., Recipe]) -> None:
    rounds = {"num_rounds": 1, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    nodes = [node.model_dump(mode="json") for node in tiny_recipe().nodes]
    recipe = tiny_recipe(rounds=rounds, nodes=[*nodes, nodes[0] | {"name": "dan"}]).resolved(Path("/"))
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    held: set[str] = set()

    def tamper(node_id: int, message: Message) -> Message:
        if node_id == LIAR and message.metadata.message_type == MessageType.TRAIN:
            held.update(e["block"] for e in json.loads(read_header(message, TrainReply).index or "")["entries"])
            strange = next(name for name in (f"layers.0.experts.{i}" for i in range(4)) if name not in held)
            entry(lambda e: e.update(block=strange))(message)
        return message

    run(grid_of(folder, tamper), folder)
    (dropped,) = [e for e in of_kind(read_events(folder.events_path), "node_reply") if e["status"] == "dropped"]
    assert dropped["node"] == "cyd"
    assert "not" in dropped["reason"]
    assert "layers.0.experts" in dropped["reason"]


class EchoingGrid(InProcessGrid):
    """Delivers every reply of one node twice."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = list(super().pull_messages(message_ids))
        return [reply for reply in found for _ in range(1 + (reply.metadata.src_node_id == LIAR))]


def test_a_second_answer_counts_once_and_is_named(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.federation.InProcessGrid", EchoingGrid)
    rounds = {"num_rounds": 2, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    _, events = run_recipe(tiny_recipe(rounds=rounds))
    late = [e for e in of_kind(events, "node_reply") if e["status"] == "late"]
    assert [(e["node"], e["round"]) for e in late][:2] == [("cyd", 1), ("cyd", 2)]
    assert "a second answer to the request of round 1" in late[0]["reason"]
    assert all(event["outcomes"] == {"unanimous": 9} for event in of_kind(events, "round_committed"))


def test_one_node_alone_waits_up_to_the_deadline_that_is_named(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = recipe_for(tiny_recipe, nodes_deadline_s=40.0)
    with pytest.raises(RunError, match=r"1 of 3 nodes are online \(ada\) after 40 s \(rounds.nodes_deadline_s\)"):
        play(recipe, even, lambda node, now: node == 1 or now < 15)
    journal = max(Path(recipe.run_root).glob("*/events.jsonl"))
    events = read_events(journal)
    assert of_kind(events, "round_committed")
    assert "waiting up to 40 s for the others" in of_kind(events, "warning")[-1]["text"]
