"""Who takes part: finds the nodes behind Flower's ids, asks each who it is, and refuses those that do not fit.

Flower's node ids are random at each start, so nodes are known by name; a node that comes back with a new id is
recognised by its description.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from strategies.exchange import Clock, Exchange
from strategies.messages import DescribeRequest, Description, pack, read_header
from strategies.placement import REPLICATION
from trfmoe_core.errors import RunError, WireError
from trfmoe_core.fingerprint import code_fingerprint

Record = Callable[..., None]
"""Called as `record(kind, **fields)` for everything that a reader of the run should know."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node that takes part, with the id under which Flower knows it now."""

    name: str
    node_id: int
    description: Description


class Federation:
    """The nodes of one run by name."""

    def __init__(self, request: DescribeRequest, tokenizer_fingerprint: str, record: Record, clock: Clock) -> None:
        self.request = request
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.record = record
        self.clock = clock
        self.members: dict[str, Member] = {}
        self._refused: set[int] = set()
        self._online: set[int] = set()

    def gather(self, grid: Grid, expected: int, nodes_deadline_s: float, reply_deadline_s: float) -> None:
        """Waits until `expected` nodes have described themselves, or the deadline has passed.

        Raises:
            RunError: when fewer than three nodes can take part.
        """
        end = self.clock.now() + nodes_deadline_s
        while True:
            self.refresh(grid, reply_deadline_s)
            if len(self.online) >= expected:
                return
            if self.clock.now() >= end:
                break
            self.clock.sleep(0.5)
        present = ", ".join(self.online) or "none"
        found = f"{len(self.online)} of {expected} nodes can take part ({present})"
        if len(self.online) < REPLICATION:
            raise RunError(
                f"{found} after {nodes_deadline_s:g} s (rounds.nodes_deadline_s), and every expert needs "
                f"{REPLICATION}; start the missing nodes, or look for node_refused in the run's events"
            )
        self.record("warning", text=f"{found} after {nodes_deadline_s:g} s; the run starts without the others")

    def refresh(self, grid: Grid, reply_deadline_s: float) -> None:
        """Asks every node that is online and unknown who it is; nodes that went offline stay members."""
        self._online = set(grid.get_node_ids())
        known = {member.node_id for member in self.members.values()} | self._refused
        fresh = sorted(self._online - known)
        if fresh:
            self._describe(grid, fresh, reply_deadline_s)

    @property
    def online(self) -> dict[str, Member]:
        """Members that Flower sees now, by name in order."""
        return {name: self.members[name] for name in sorted(self.members) if self.members[name].node_id in self._online}

    def _describe(self, grid: Grid, node_ids: Iterable[int], deadline_s: float) -> None:
        messages = {
            str(node_id): Message(pack(self.request), dst_node_id=node_id, message_type=MessageType.QUERY)
            for node_id in node_ids
        }
        described = []
        for key, reply, reason in Exchange(grid=grid, deadline_s=deadline_s, clock=self.clock).run(messages):
            node_id = int(key)
            if reply is None:
                self._refuse(node_id, f"node {node_id}", reason)
                continue
            try:
                described.append((node_id, read_header(reply, Description)))
            except WireError as error:
                self._refuse(node_id, f"node {node_id}", str(error))
        for node_id, description in sorted(described, key=lambda item: item[1].name):
            self._admit(node_id, description)

    def _admit(self, node_id: int, description: Description) -> None:
        name = description.name
        reason = self._objection(description)
        if reason:
            self._refuse(node_id, name, reason)
            return
        back = name in self.members
        self.members[name] = Member(name=name, node_id=node_id, description=description)
        fields: dict[str, Any] = description.model_dump(mode="json", exclude={"protocol", "name", "refusal"})
        self.record("node_joined", node=name, back=back, **fields)

    def _objection(self, description: Description) -> str:
        name = description.name
        if description.refusal:
            return description.refusal
        if name in self.members and self.members[name].node_id in self._online:
            return f"another node called {name!r} takes part already; give every node a name of its own"
        if description.code_fingerprint != code_fingerprint():
            return (
                f"its code {description.code_fingerprint[:12]} differs from the coordinator's "
                f"{code_fingerprint()[:12]}; start the SuperLink from an empty folder and use one release everywhere"
            )
        if description.tokenizer_fingerprint != self.tokenizer_fingerprint:
            return (
                f"its tokenizer {str(description.tokenizer_fingerprint)[:12]} differs from the coordinator's "
                f"{self.tokenizer_fingerprint[:12]}; copy the coordinator's tokenizer folder to the node"
            )
        return ""

    def _refuse(self, node_id: int, node: str, reason: str) -> None:
        self._refused.add(node_id)
        self.record("node_refused", node=node, reason=reason)
