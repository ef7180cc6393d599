"""Pulls the answer to one message, and checks its size and structure before Flower makes objects of it.

`HttpGrid.pull_messages` fetches into memory whatever a node sent and inflates it, although one piece of an array may be
named a million times. It believes the metadata that the node wrote, and it waits up to two hours for objects that
were never uploaded. This module makes the same calls one at a time. It fetches no more than `size_limits` allows, takes
the sender from the SuperLink, and asks for missing objects again at its next look, so that no node holds up the others.
"""

import json
import threading
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


class Puller:
    """Pulls the answers of one grid. A grid without a network pulls by its own method."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._incoming: dict[str, _Incoming] = {}

    def pull(self, message_id: str, room: SizeLimits) -> list[Message]:
        """Returns what has arrived for a message: nothing yet, or an answer, which the SuperLink then frees.

        Any other exception is the fault of the answer, which is freed too.

        Raises:
            WireError: The answer is larger than allowed, or is not built as Flower builds one.
        """
        if not isinstance(self._grid, HttpGrid):
            return list(self._grid.pull_messages([message_id]))
        incoming = self._incoming.pop(message_id, None) or self._ask(self._grid, message_id, room)
        if incoming is None:
            return []
        try:
            contents = _fetch(self._grid, incoming, room)
        except NotYetError as error:
            incoming.lacking = str(error)
            self._incoming[message_id] = incoming
            return []
        except ObjectPullError:
            _confirm(self._grid, incoming.root)
            raise WireError("the answer was announced, and its node ended before it had uploaded all of it") from None
        except Exception:
            _confirm(self._grid, incoming.root)
            raise
        _confirm(self._grid, incoming.root)
        return [_inflated(incoming, contents, room)]

    def forget(self, message_ids: set[str]) -> None:
        """Forgets what has begun to arrive for any but these messages."""
        self._incoming = {key: incoming for key, incoming in self._incoming.items() if key in message_ids}

    @staticmethod
    def _ask(grid: HttpGrid, message_id: str, room: SizeLimits) -> _Incoming | None:
        answer = grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=[message_id]))
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            if message.metadata.reply_to_message_id != message_id:
                continue
            root = message.metadata.message_id
            try:
                objects = _objects(tree, room.objects)
            except Exception:
                _confirm(grid, root)
                raise
            return _Incoming(root=root, metadata=message.metadata, objects=objects, lacking=root)
        return None


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
