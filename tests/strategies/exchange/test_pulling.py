"""Flower's objects as a hostile node writes them, through Flower's own serialisation: whatever comes is that node's."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.proto.message_pb2 import ObjectTree

from clients.app import app
from scripts.experiments.wire_grid import Sent, WireGrid, clients
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.exchange.in_flight import Clock, pause_s
from strategies.exchange.pulling import BATCH, FEWEST_BATCHED, MOST_FAULTS, Puller
from strategies.exchange.size_limits import SizeLimits
from tests.federation import of_kind
from trfmoe_core.config import Recipe

LIAR = 3
Spoil = Callable[[Sent], None]


def keys(sent: Sent, kind: str) -> list[str]:
    return [key for key, content in sent.contents.items() if content.startswith(f"{kind} ".encode())]


def rewrite(sent: Sent, kind: str, change: Callable[[bytes], bytes]) -> None:
    """Changes the content of the first object of a kind."""
    key = keys(sent, kind)[0]
    sent.contents[key] = change(sent.contents[key])


def body(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Changes what stands after an object's head, whose length stays true."""
    head, _, rest = content.partition(b"\0")
    kind, children, _ = head.split(b" ")
    new = change(rest)
    return b" ".join([kind, children, str(len(new)).encode()]) + b"\0" + new


def in_json(kind: str, change: Callable[[Any], Any]) -> Spoil:
    def spoil(sent: Sent) -> None:
        rewrite(sent, kind, lambda content: body(content, lambda text: json.dumps(change(json.loads(text))).encode()))

    return spoil


def in_body(kind: str, new: bytes) -> Spoil:
    return lambda sent: rewrite(sent, kind, lambda content: body(content, lambda _: new))


def of_kind_instead(kind: str, other: str) -> Spoil:
    return lambda sent: rewrite(sent, kind, lambda content: content.replace(kind.encode(), other.encode(), 1))


def without(kind: str) -> Spoil:
    def spoil(sent: Sent) -> None:
        del sent.contents[keys(sent, kind)[0]]

    return spoil


def child_lost(sent: Sent) -> None:
    """The message names a record that the tree of objects lacks."""
    sent.tree.children[0].ClearField("children")


def raising(error: Exception) -> Spoil:
    def spoil(sent: Sent) -> None:
        sent.raises = error

    return spoil


def wide(sent: Sent) -> None:
    sent.tree.children.extend(ObjectTree(object_id=f"{number:064x}") for number in range(100_000))


def says(field: str, value: Any) -> Spoil:
    def spoil(sent: Sent) -> None:
        setattr(sent.message.metadata, field, value)

    return spoil


FAULT = httpx.HTTPStatusError(
    "500 Internal Server Error", request=httpx.Request("POST", "http://x"), response=httpx.Response(500)
)


IMPATIENT = Clock(sleep=lambda _: None)


def bomb(metadata: dict[str, Any]) -> dict[str, Any]:
    """An array whose one piece is named so often that it would be 2 GB."""
    return {**metadata, "arraychunk_ids": [0] * 20_000}


TRAINING: dict[str, tuple[Spoil, str]] = {
    "another type": (of_kind_instead("ConfigRecord", "RecordDict"), "in it"),
    "no such type": (of_kind_instead("Array", "Arrray"), "in it"),
    "json of an array": (in_body("Array", b'{"dtype": '), "JSONDecodeError"),
    "json of the records": (in_body("RecordDict", b"[]"), "AttributeError"),
    "no such key": (in_json("Array", lambda tree: {"stype": "x"}), "KeyError"),
    "infinite shape": (in_json("Array", lambda tree: {**tree, "shape": [float("inf")]}), "cannot be handled"),
    "place out of range": (in_json("Array", lambda tree: {**tree, "arraychunk_ids": [7]}), "IndexError"),
    "place a text": (in_json("Array", lambda tree: {**tree, "arraychunk_ids": "abc"}), "TypeError"),
    "bomb": (in_json("Array", bomb), "more than the"),
    "protobuf": (in_body("ConfigRecord", b"\xff" * 50), "DecodeError"),
    "protobuf of the message": (in_body("Message", b"\x0a\xff"), "DecodeError"),
    "no head": (lambda sent: rewrite(sent, "Array", lambda _: b"Array"), "cannot be handled"),
    "missing child": (child_lost, "missing object"),
    "too deep a tree": (raising(ValueError("Invalid protobuf response payload")), "Invalid protobuf"),
    "a fault of the SuperLink": (raising(FAULT), "500 Internal"),
    "wide tree": (wide, "objects that it can need"),
    "large records": (in_body("ConfigRecord", b"\x0a" * 3_000_000), "larger than this node can need"),
    "large pieces": (in_body("ArrayChunk", b"\0" * 3_000_000), "larger than this node can need"),
    "another sender": (says("src_node_id", 2), "something else than the SuperLink knows"),
    "another type of message": (says("message_type", "query"), "something else than the SuperLink knows"),
}


def play(
    recipe: Recipe, spoil: Callable[[int, Sent], Sent | None], clock: Clock | None = None
) -> tuple[list[dict[str, Any]], WireGrid]:
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    configs = [{"partition-id": number} for number in range(len(recipe.nodes))]
    answer = clients(app, configs, {"recipe": str(folder.path / "recipe.yaml")})
    names = {number: node.name for number, node in enumerate(recipe.nodes, 1)}
    grid = WireGrid(names, answer, spoil)
    run(grid, folder, clock)
    return read_events(folder.events_path), grid


@pytest.mark.parametrize("place", ["PullMessages", "PullObject", "ConfirmMessageReceived"])
def test_a_superlink_that_fails_for_a_while_costs_no_node_its_answer(place: str) -> None:
    grid = WireGrid({1: "ada"}, lambda node, request: Message(RecordDict(), reply_to=request))
    ids = list(grid.push_messages([Message(RecordDict(), dst_node_id=1, message_type="query")]))
    puller, real, left = Puller(grid), getattr(grid.superlink, place), [MOST_FAULTS - 1]

    def failing(request: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise FAULT
        return real(request)

    setattr(grid.superlink, place, failing)
    looks = [puller.pull(ids[0], SizeLimits()) for _ in range(MOST_FAULTS)]
    assert [len(found) for found in looks] == [0] * (MOST_FAULTS - 1) + [1]
    assert len(grid.superlink.confirmed) == 1 and puller.pull(ids[0], SizeLimits()) == []


def test_what_does_not_inflate_is_dropped_and_the_run_goes_on(tiny_recipe: Callable[..., Recipe]) -> None:
    kinds = iter(TRAINING.values())

    def spoil(node: int, sent: Sent) -> Sent:
        if node == LIAR and sent.message.metadata.message_type == MessageType.TRAIN:
            next(kinds)[0](sent)
        elif node == LIAR and sent.message.metadata.message_type == MessageType.EVALUATE:
            in_body("ConfigRecord", b"\xff")(sent)
        return sent

    rounds = {"num_rounds": len(TRAINING), "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    data = {"piece_bytes": 512, "evaluation_tokens": 64}
    events, grid = play(tiny_recipe(rounds=rounds, data=data), spoil, IMPATIENT)
    replies = [event for event in of_kind(events, "node_reply") if event["node"] == "cyd"]
    assert [event["status"] for event in replies] == ["dropped"] * (len(TRAINING) + 1)
    for name, (_, reason), event in zip(TRAINING, TRAINING.values(), replies, strict=False):
        assert reason in event["reason"], (name, event["reason"])
    for verdict in (verdict for event in of_kind(events, "verdicts") for verdict in event["verdicts"]):
        assert (verdict["invalid"], verdict["missing"]) == (["cyd"], [])
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    assert not grid.superlink.replies, "the SuperLink is rid of every answer"


@pytest.mark.parametrize("name", ["protobuf", "json of the records", "another type", "protobuf of the message"])
def test_a_description_that_does_not_inflate_is_refused_by_the_registered_name(
    tiny_recipe: Callable[..., Recipe], name: str
) -> None:
    def spoil(node: int, sent: Sent) -> Sent:
        if node == LIAR:
            TRAINING[name][0](sent)
        return sent

    rounds = {"num_rounds": 2, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 2.0}
    nodes = [node.model_dump(mode="json") for node in tiny_recipe().nodes]
    recipe = tiny_recipe(rounds=rounds, nodes=[*nodes, nodes[0] | {"name": "dan"}]).resolved(Path("/"))
    events, _ = play(recipe, spoil)
    refused = of_kind(events, "node_refused")
    assert {event["node"] for event in refused} == {"cyd"}
    assert len(of_kind(events, "round_committed")) == 2
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_what_is_not_uploaded_yet_holds_nobody_up_and_is_asked_for_again(tiny_recipe: Callable[..., Recipe]) -> None:
    held_back: list[Sent] = []

    def spoil(node: int, sent: Sent) -> Sent:
        if node == LIAR and sent.message.metadata.message_type == MessageType.TRAIN:
            sent.unavailable = {sent.message.metadata.message_id, *keys(sent, "ArrayChunk")}
            held_back.append(sent)
        elif held_back and sent.message.metadata.message_type == MessageType.EVALUATE:
            held_back.pop().unavailable.clear()
        return sent

    rounds = {"num_rounds": 1, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 0.5}
    events, _ = play(tiny_recipe(rounds=rounds), spoil)
    replies = [(event["node"], event["status"]) for event in of_kind(events, "node_reply") if event["round"] == 1]
    assert replies[:3] == [("ada", "accepted"), ("bob", "accepted"), ("cyd", "missing")]
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_no_more_is_fetched_than_the_answer_has_room_for() -> None:
    grid = WireGrid({1: "ada"}, lambda node, request: None)
    large = Sent.of(_reply(b"\1" * 30_000_000))
    superlink: Any = grid.superlink
    superlink.replies["x"] = large
    large.message.metadata.reply_to_message_id = "asked"
    superlink.PullMessages = lambda request: _told(large)
    with pytest.raises(Exception, match="larger than this node can need"):
        Puller(grid).pull("asked", SizeLimits(parcel=1_000_000, buffers=1))
    assert superlink.pulled_bytes < 3 * 5_300_000 + 100_000  # two pieces at a time are on their way
    assert superlink.confirmed == [large.message.metadata.message_id]


def _reply(data: bytes) -> Any:
    from flwr.app import Array, ArrayRecord, Message, RecordDict

    array = Array(dtype="uint8", shape=(len(data),), stype="trfmoe.bytes", data=data)
    return Message(RecordDict({"parcel": ArrayRecord({"0": array})}), dst_node_id=1, message_type="train")


def _told(sent: Sent) -> Any:
    from flwr.proto.runtime_pb2 import PullAppMessagesResponse

    return PullAppMessagesResponse(messages_list=[sent.message], message_object_trees=[sent.tree])


def _asked(count: int, spoil: Callable[[int, Sent], Sent | None] = lambda _, sent: sent) -> Any:
    """Returns a grid with so many requests under way, a puller, their limits, and the sizes of its requests."""
    names = {number: f"n{number}" for number in range(1, count + 1)}
    grid = WireGrid(names, lambda node, request: Message(RecordDict(), reply_to=request), spoil)
    messages = [Message(RecordDict(), dst_node_id=number, message_type="query") for number in names]
    rooms = {next(iter(grid.push_messages([message]))): SizeLimits() for message in messages}
    sizes: list[int] = []
    superlink: Any = grid.superlink
    real = superlink.PullMessages

    def counted(request: Any) -> Any:
        sizes.append(len(request.message_ids))
        return real(request)

    superlink.PullMessages = counted
    return Puller(grid), rooms, sizes


def test_many_messages_are_asked_for_in_few_requests_and_every_answer_is_fetched_once() -> None:
    puller, rooms, sizes = _asked(3 * BATCH + 1)
    answered = puller.answered(rooms)
    assert answered == list(rooms) and sizes == [BATCH, BATCH, BATCH, 1]
    assert all(len(puller.pull(message_id, rooms[message_id])) == 1 for message_id in answered)
    assert len(sizes) == 4, "what was announced is not asked for again"
    assert puller.pull(answered[0], SizeLimits()) == []


def test_few_messages_are_asked_for_one_by_one() -> None:
    puller, rooms, sizes = _asked(FEWEST_BATCHED - 1)
    assert puller.answered(rooms) == list(rooms) and sizes == []
    assert all(len(puller.pull(message_id, rooms[message_id])) == 1 for message_id in rooms)
    assert sizes == [1] * len(rooms)


def test_an_answer_that_spoils_a_request_for_many_ends_such_requests() -> None:
    def spoil(node: int, sent: Sent) -> Sent:
        if node == LIAR:
            raising(ValueError("Invalid protobuf response payload"))(sent)
        return sent

    puller, rooms, sizes = _asked(2 * BATCH, spoil)
    assert puller.answered(rooms) == list(rooms) and sizes == [BATCH]
    got = []
    for number, message_id in enumerate(rooms, 1):
        with pytest.raises(ValueError, match="Invalid protobuf") if number == LIAR else nullcontext():
            got += puller.pull(message_id, rooms[message_id])
    assert len(got) >= BATCH, "those that were not in that request are there"
    assert set(sizes[1:]) == {1} and puller.answered(rooms) == list(rooms)


def test_the_pause_grows_with_the_silence_and_stays_a_hundredth_of_it() -> None:
    assert [pause_s(quiet) for quiet in (0, 5, 20, 50, 100, 1000)] == [0.05, 0.05, 0.2, 0.5, 1.0, 1.0]


def test_the_pause_is_ten_times_as_long_as_a_look_that_found_nothing() -> None:
    assert [pause_s(1, look) for look in (0.001, 0.02, 0.05, 0.2)] == pytest.approx([0.05, 0.2, 0.5, 1.0])
    assert pause_s(50, 0.02) == 0.5, "the longer of the two reasons counts"
