"""A Flower grid without network and processes: it calls the ClientApp of every node directly, one after the other.

For experiments and tests. Strategy, ServerApp and ClientApp are the real ones; nothing is serialised, and time passes
only by the clock that the grid is given.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from trfmoe_core.errors import TRFMoEError

CLIENT_RAISED = 2
"""Flower's error code for a client that raised."""


class InProcessGrid(Grid):
    """Nodes with ids 1, 2, ... that answer at once.

    Args:
        app: The ClientApp of every node.
        node_configs: One Flower node configuration a node.
        run_config: What `flwr run --run-config` would give.
        tamper: Called with (node id, reply) when a node has answered; returns the reply that arrives, or None if none
            does.
        exchange: Called with the replies (by message id) to all messages that were pushed since the last delivery,
            before any of them is delivered; returns the replies that arrive.
        latency_s: Called with (node id, message); returns how long the node takes to answer, infinite for silence.
        now: The clock by which that time passes, in seconds.
    """

    def __init__(
        self,
        app: ClientApp,
        node_configs: Sequence[dict[str, Any]],
        run_config: dict[str, Any],
        tamper: Callable[[int, Message], Message | None] | None = None,
        *,
        exchange: Callable[[Mapping[str, Message]], Mapping[str, Message]] | None = None,
        latency_s: Callable[[int, Message], float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self._app = app
        self._tamper = tamper
        self._contexts = {
            number: Context(
                run_id=1, node_id=number, node_config=config, state=RecordDict(), run_config=dict(run_config)
            )
            for number, config in enumerate(node_configs, 1)
        }
        self._replies: dict[str, Message] = {}
        self._exchange = exchange
        self._latency_s = latency_s
        self._now = now
        self._ready: dict[str, float] = {}
        self._unseen: list[str] = []

    @property
    def run(self) -> Run:
        """Not available: there is no run record without a SuperLink."""
        raise TRFMoEError("an in-process grid has no run record")

    def set_run(self, run: Run) -> None:
        """Accepted and not needed."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Returns a message, as Flower's constructor makes it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Returns the ids of all nodes."""
        return list(self._contexts)

    def get_nodes(self) -> Iterable[Any]:
        """Returns nothing: nodes in one process are not registered."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Runs the clients and keeps their replies."""
        ids = []
        for message in messages:
            message_id = uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            node_id = message.metadata.dst_node_id
            if node_id not in self._contexts:
                continue
            ids.append(message_id)
            reply: Message | None
            try:
                reply = self._app(message=message, context=self._contexts[node_id])
            except Exception as error:  # noqa: BLE001  A real node reports whatever its client raised.
                reply = Message(Error(code=CLIENT_RAISED, reason=repr(error)), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = node_id
            if self._tamper is not None:
                reply = self._tamper(node_id, reply)
            if reply is not None:
                self._replies[message_id] = reply
                self._unseen.append(message_id)
                if self._latency_s is not None:
                    self._ready[message_id] = self._now() + self._latency_s(node_id, message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns the replies to messages that have arrived, once."""
        unseen, self._unseen = self._unseen, []
        if self._exchange is not None and unseen:
            self._replies |= self._exchange({message_id: self._replies[message_id] for message_id in unseen})
        now = self._now()
        arrived = [key for key in message_ids if key in self._replies and self._ready.get(key, now) <= now]
        return [self._replies.pop(message_id) for message_id in arrived]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pushes and pulls at once."""
        return self.pull_messages(self.push_messages(messages))
