"""Flower's own network grid over a stand-in for the SuperLink: everything is serialised, and any of it can be spoilt.

`HttpGrid`, protobuf, deflating and inflating are Flower's; what is missing is HTTP and processes. For tests and
benchmarks.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    GetNodesRequest,
    GetNodesResponse,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

RUN_ID = 1
Answer = Callable[[int, Message], Message | None]
"""Node id and request -> reply, or None for silence."""


@dataclass
class Sent:
    """A reply as it lies in the SuperLink: what a hostile node can write, all of it."""

    message: ProtoMessage
    tree: ObjectTree
    contents: dict[str, bytes]
    unavailable: set[str] = field(default_factory=set)
    raises: Exception | None = None
    """What asking for the message raises, as when its tree is too deep for protobuf."""

    @classmethod
    def of(cls, reply: Message) -> "Sent":
        """Returns a reply as Flower deflates it."""
        objects = get_all_nested_objects(reply)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        return cls(
            message=message_to_proto(remove_content_from_message(reply)),
            tree=get_object_tree(reply),
            contents={key: thing.deflate() for key, thing in objects.items()},
        )


class SuperLinkStandIn:
    """Takes the calls of `HttpGrid`, and asks the nodes when their answer is asked for.

    Args:
        nodes: Flower's ids -> the names that they are registered under.
        answer: What the nodes are.
        spoil: Called with (node id, reply as it is serialised); returns what lies here instead.
    """

    def __init__(self, nodes: Mapping[int, str], answer: Answer, spoil: Callable[[int, Sent], Sent | None]) -> None:
        self._nodes, self._answer, self._spoil = nodes, answer, spoil
        self._requests: dict[str, tuple[int, ObjectTree]] = {}
        self._objects: dict[str, bytes] = {}
        self._uses: Counter[str] = Counter()
        self._raising: dict[str, Sent] = {}
        self.replies: dict[str, Sent] = {}
        self.confirmed: list[str] = []
        self.pulled_bytes = 0

    def GetNodes(self, request: GetNodesRequest) -> GetNodesResponse:
        """Tells all nodes; all are online."""
        return GetNodesResponse(nodes=[NodeInfo(node_id=node, name=name) for node, name in self._nodes.items()])

    def PushMessages(self, request: PushAppMessagesRequest) -> PushAppMessagesResponse:
        """Takes requests, and tells which of their objects are not here yet."""
        ids, wanted = [], []
        for message, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            ids.append(message.metadata.message_id)
            parts = _ids(tree)
            wanted += [key for key in parts if key not in self._objects]
            self._uses.update(parts)
            self._requests[message.metadata.message_id] = (message.metadata.dst_node_id, tree)
        return PushAppMessagesResponse(message_ids=ids, objects_to_push=wanted)

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:
        """Takes an object of a request."""
        self._objects[request.object_id] = request.object_content
        return PushObjectResponse(stored=True)

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        """Asks the nodes for their answers, and announces those that came."""
        found = []
        for message_id in request.message_ids:
            if sent := self._raising.pop(message_id, None):
                found.append(self._delivered(message_id, sent))
            if message_id not in self._requests:
                continue
            node, tree = self._requests[message_id]
            contents = {key: self._objects[key] for key in _ids(tree)}
            asked: Any = inflate_object_from_contents(message_id, contents, keep_object_contents=True)
            asked.metadata.__dict__["_message_id"] = message_id
            reply = self._answer(node, asked)
            if reply is None:
                continue
            self._forget(message_id)
            reply.metadata.__dict__["_src_node_id"] = node
            sent = self._spoil(node, Sent.of(reply))
            if sent is not None:
                found.append(self._delivered(message_id, sent))
        return PullAppMessagesResponse(
            messages_list=[sent.message for sent in found], message_object_trees=[sent.tree for sent in found]
        )

    def _delivered(self, message_id: str, sent: Sent) -> Sent:
        if sent.raises is not None:  # each time that it is asked for
            self._raising[message_id] = sent
            raise sent.raises
        self.replies[sent.message.metadata.message_id] = sent
        return sent

    def _forget(self, message_id: str) -> None:
        _, tree = self._requests.pop(message_id)
        for key in _ids(tree):
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key], self._objects[key]

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        """Gives out an object of an answer."""
        for sent in reversed(self.replies.values()):
            if request.object_id in sent.unavailable:
                return PullObjectResponse(object_found=True, object_available=False)
            if request.object_id in sent.contents:
                content = sent.contents[request.object_id]
                self.pulled_bytes += len(content)
                return PullObjectResponse(object_found=True, object_available=True, object_content=content)
        return PullObjectResponse(object_found=False, object_available=False)

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> ConfirmMessageReceivedResponse:
        """Forgets an answer."""
        self.confirmed.append(request.message_object_id)
        self.replies.pop(request.message_object_id, None)
        return ConfirmMessageReceivedResponse()


def _ids(tree: ObjectTree) -> list[str]:
    return [node.object_id for node in iterate_object_tree(tree)]


class WireGrid(HttpGrid):
    """`HttpGrid` with a stand-in in the place of its connection.

    Args:
        nodes: Flower's ids -> the names that they are registered under.
        answer: What the nodes are.
        spoil: Called with (node id, reply as it is serialised); returns what lies in the SuperLink instead.
    """

    def __init__(
        self,
        nodes: Mapping[int, str],
        answer: Answer,
        spoil: Callable[[int, Sent], Sent | None] = lambda _, sent: sent,
    ) -> None:
        super().__init__(token="none")
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 1
        self.superlink = SuperLinkStandIn(nodes, answer, spoil)
        self._client: Any = self.superlink
        self._run = Run.create_empty(RUN_ID)


def clients(app: Any, node_configs: Sequence[dict[str, Any]], run_config: dict[str, Any]) -> Answer:
    """Returns nodes 1, 2, ... that are real client apps."""
    contexts = {
        number: Context(RUN_ID, number, config, RecordDict(), dict(run_config))
        for number, config in enumerate(node_configs, 1)
    }

    def answer(node: int, request: Message) -> Message:
        try:
            reply: Message = app(message=request, context=contexts[node])
        except Exception as error:  # noqa: BLE001  A real node reports whatever its client raised.
            reply = Message(Error(code=2, reason=repr(error)), reply_to=request)
        return reply

    return answer


__all__ = ["Answer", "Sent", "WireGrid", "clients"]
