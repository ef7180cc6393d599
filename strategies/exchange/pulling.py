"""Pulls answers to messages, and checks their size and structure before Flower makes objects of them.

`HttpGrid.pull_messages` fetches into memory whatever a node sent and inflates it, although one piece of an array may be
named a million times. It believes the metadata that the node wrote, and it waits up to two hours for objects that
were never uploaded. This module makes the same calls, and asks in one request which of many messages are answered.
Then it fetches one answer at a time and no more of it than `size_limits` allows, takes the sender from the SuperLink,
and asks for missing objects again at its next look, so that no node holds up the others.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid.http_grid import HttpGrid
from httpx import HTTPStatusError

from strategies.exchange.boundary import boundary
from strategies.exchange.size_limits import SizeLimits
from trfmoe_core.errors import WireError

_PIECE = "ArrayChunk"
_INSIDE = {
    "Message": {"RecordDict"},
    "RecordDict": {"ConfigRecord", "MetricRecord", "ArrayRecord"},
    "ArrayRecord": {"Array"},
    "Array": {_PIECE},
}
"""Maps each kind of object to the kinds that it may contain. No kind contains itself, so nesting is bounded."""

MOST_FAULTS = 25
"""Number of failures of the SuperLink for the same answer after which the answer is to blame."""

BATCH, FEWEST_BATCHED = 64, 17
"""Most messages that one request asks for, and from how many on requests ask for more than one.

The SuperLink gives an answer out once. If it cannot tell all answers of a request, because one node has nested its
objects too deep, the others of that request are lost. So few messages are asked for one by one, batches are small, and
after a request has failed no more batches are asked for.
"""

_SERVER_ERROR = 500

_PIECE_HEAD = 64
"""Most bytes of the heading before a piece's data."""


class NotYetError(Exception):
    """An object that was announced is not uploaded yet."""


@dataclass(kw_only=True)
class _Incoming:
    """An answer that the SuperLink has announced, and that is still being uploaded."""

    root: str
    metadata: Any
    objects: list[str]
    lacking: str
    refusal: Exception | None = None
    """Why it is not even fetched."""


class Puller:
    """Pulls the answers of one grid. A grid without a network pulls by its own method."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._incoming: dict[str, _Incoming] = {}
        self._faults: Counter[str] = Counter()
        self._alone = False

    def answered(self, rooms: Mapping[str, SizeLimits]) -> list[str]:
        """Returns the messages that are worth a `pull`: if there are many, those whose answers were announced.

        Args:
            rooms: Message id -> how large its answer may be.
        """
        unknown = [message_id for message_id in rooms if message_id not in self._incoming]
        if self._alone or len(unknown) < FEWEST_BATCHED or not isinstance(self._grid, HttpGrid):
            return list(rooms)
        try:
            with boundary():
                for begin in range(0, len(unknown), BATCH):
                    self._ask(self._grid, unknown[begin : begin + BATCH], rooms)
        except WireError:
            self._alone = True
            return list(rooms)
        return [message_id for message_id in rooms if message_id in self._incoming]

    def pull(self, message_id: str, room: SizeLimits) -> list[Message]:
        """Returns what has arrived for a message: nothing yet, or an answer, which the SuperLink then frees.

        If the SuperLink fails (HTTP 500 and above), nothing has arrived yet, until it has failed `MOST_FAULTS` times
        for the same message. Any other exception is the fault of the answer, which is freed too.

        Raises:
            WireError: The answer is larger than allowed, or is not built as Flower builds one.
        """
        if not isinstance(self._grid, HttpGrid):
            return list(self._grid.pull_messages([message_id]))
        try:
            found = self._pull(self._grid, message_id, room)
        except HTTPStatusError as error:
            self._faults[message_id] += 1
            if error.response.status_code < _SERVER_ERROR or self._faults[message_id] >= MOST_FAULTS:
                if incoming := self._incoming.get(message_id):
                    with suppress(HTTPStatusError):  # what the SuperLink cannot free now goes with the run
                        _confirm(self._grid, incoming.root)
                self.forget([message_id])
                raise
            return []
        self._faults.pop(message_id, None)
        return found

    def forget(self, message_ids: Iterable[str]) -> None:
        """Forgets what has begun to arrive for some messages."""
        for message_id in message_ids:
            self._incoming.pop(message_id, None)
            self._faults.pop(message_id, None)

    def _pull(self, grid: HttpGrid, message_id: str, room: SizeLimits) -> list[Message]:
        if message_id not in self._incoming:
            self._ask(grid, [message_id], {message_id: room})
        incoming = self._incoming.get(message_id)
        if incoming is None:
            return []
        try:
            if incoming.refusal is not None:
                raise incoming.refusal
            contents = _fetch(grid, incoming, room)
        except NotYetError as error:
            incoming.lacking = str(error)
            return []
        except HTTPStatusError:
            raise  # the SuperLink's fault, perhaps: the answer stays until that is known
        except Exception as error:
            del self._incoming[message_id]
            _confirm(grid, incoming.root)
            if isinstance(error, ObjectPullError):
                reason = "the answer was announced, and its node ended before it had uploaded all of it"
                raise WireError(reason) from None
            raise
        _confirm(grid, incoming.root)
        del self._incoming[message_id]
        return [_inflated(incoming, contents, room)]

    def _ask(self, grid: HttpGrid, message_ids: Sequence[str], rooms: Mapping[str, SizeLimits]) -> None:
        """Takes down which messages are answered. The SuperLink announces an answer once."""
        answer = grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            message_id, root = message.metadata.reply_to_message_id, message.metadata.message_id
            if message_id not in rooms or message_id in self._incoming:
                continue
            incoming = _Incoming(root=root, metadata=message.metadata, objects=[], lacking=root)
            try:
                incoming.objects = _objects(tree, rooms[message_id].objects)
            except WireError as error:
                incoming.refusal = error
            self._incoming[message_id] = incoming


def _objects(tree: ObjectTree, most: int) -> list[str]:
    found: dict[str, None] = {}
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        found[node.object_id] = None
        if len(found) + len(waiting) + len(node.children) > most:
            raise WireError(f"the message has more than the {most} objects that it can need")
        waiting.extend(node.children)
    return list(found)


def _fetch(grid: HttpGrid, incoming: _Incoming, room: SizeLimits) -> dict[str, bytes]:
    pull = make_pull_object_fn_protobuf(grid._runtime_client.PullObject, node=grid.node, run_id=grid.run.run_id)
    lock = threading.Lock()
    left = {True: _pieces(room), False: room.overhead}

    def bounded(object_id: str) -> bytes:
        try:
            content = pull(object_id)
        except ObjectUnavailableError:
            raise NotYetError(object_id) from None
        piece = content.startswith(_PIECE.encode())
        with lock:
            left[piece] -= len(content)
            if left[piece] < 0:
                what = "arrays" if piece else "header and records"
                raise WireError(f"the message's {what} are larger than this node can need to send")
        return content

    # Asked for first: it was missing at the last look, or is the one that a node uploads last.
    first = bounded(incoming.lacking)
    rest = pull_objects([key for key in incoming.objects if key != incoming.lacking], bounded)
    return {incoming.lacking: first, **rest}


def _pieces(room: SizeLimits) -> int:
    return room.parcel + _PIECE_HEAD * room.objects


def _confirm(grid: HttpGrid, root: str) -> None:
    """Lets the SuperLink free an answer's objects."""
    request = ConfirmMessageReceivedRequest(node=grid.node, run_id=grid.run.run_id, message_object_id=root)
    grid._runtime_client.ConfirmMessageReceived(request)


def _inflated(incoming: _Incoming, contents: dict[str, bytes], room: SizeLimits) -> Message:
    _check(incoming.root, contents, room)
    message = inflate_object_from_contents(incoming.root, contents)
    if not isinstance(message, Message):
        raise WireError(f"the answer is a {type(message).__name__} and no Message")
    told, known = message.metadata, incoming.metadata
    for key in ("run_id", "src_node_id", "dst_node_id", "reply_to_message_id", "message_type"):
        if message.has_content() and getattr(told, key) != getattr(known, key):
            raise WireError(f"the message says of its {key} something else than the SuperLink knows")
    told.__dict__["_message_id"] = incoming.root
    return message


def _check(root: str, contents: dict[str, bytes], room: SizeLimits) -> None:
    """Checks how objects contain each other, and the total size of the arrays, repeated pieces counted each time."""
    heads = {key: get_object_head_values_from_object_content(content) for key, content in contents.items()}
    if root not in heads or heads[root][0] != "Message":
        raise WireError("the answer's first object is no Message")
    left = _pieces(room)
    for key, (kind, children, _) in heads.items():
        if len(children) > room.objects:
            raise WireError(f"a {kind} of the message lists {len(children)} parts")
        for child in children:
            if child not in heads or heads[child][0] not in _INSIDE.get(kind, ()):
                inside = heads[child][0] if child in heads else "missing object"
                raise WireError(f"a {kind} of the message has a {inside} in it")
        if kind == "Array":
            body = contents[key].partition(b"\x00")[2]
            for place in json.loads(body)["arraychunk_ids"]:
                left -= len(contents[children[place]])
                if left < 0:
                    raise WireError(f"the message's arrays have more than the {room.parcel} bytes that they can need")
