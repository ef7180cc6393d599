"""Who takes part: finds the nodes behind Flower's ids, asks each who it is, and refuses those that do not fit.

Flower's node ids are random at each start, so nodes are known by name; a node that comes back with a new id is
recognised by its description.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from strategies.agreement import disagreement
from strategies.boundary import boundary, plain
from strategies.exchange import Clock, Exchange
from strategies.messages import DescribeRequest, Description, has_parcel, pack, read_header
from strategies.room import DESCRIPTION
from trfmoe_core.errors import RunError, WireError

Record = Callable[..., None]
"""Called as `record(kind, **fields)` for everything that a reader of the run should know."""


FEWEST = 2
"""Nodes without which a round is not begun."""

_DESCRIBE = 0


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node that takes part, with the id under which Flower knows it now."""

    name: str
    node_id: int
    description: Description


class Federation:
    """The nodes of one run by name."""

    def __init__(self, request: DescribeRequest, record: Record, clock: Clock) -> None:
        self.request = request
        self.record = record
        self.clock = clock
        self.members: dict[str, Member] = {}
        self._refused: dict[int, str] = {}
        self._online: set[int] = set()
        self._asked: set[int] = set()
        self._exchange: Exchange | None = None
        self._registered_names: dict[int, str] = {}

    def gather(
        self, grid: Grid, expected: int, replication: int, nodes_deadline_s: float, reply_deadline_s: float
    ) -> None:
        """Waits until `expected` nodes have described themselves, or the deadline has passed.

        A node that was asked and prepares its data is waited for up to the reply's deadline.

        Raises:
            RunError: when fewer than `replication` nodes can take part.
        """
        start = self.clock.now()
        while len(self.online) < expected:
            self.refresh(grid)
            elapsed = self.clock.now() - start
            if len(self.online) >= expected:
                return
            if len(self._refused) >= expected and not self.members and not self._asked:
                break  # all are there and none can take part; one of them alone must not end the wait for the others
            if elapsed >= (reply_deadline_s if self._asked else nodes_deadline_s):
                break
            self.clock.sleep(0.5)
        if len(self.online) >= expected:
            return
        present = ", ".join(self.online) or "none"
        waited = self.clock.now() - start
        found = f"{len(self.online)} of {expected} nodes can take part ({present}) after {waited:.0f} s"
        if len(self.online) < replication:
            refused = "; ".join(sorted(self._refused.values()))
            remedy = f"refused: {refused}" if refused else "start the missing nodes (rounds.nodes_deadline_s)"
            raise RunError(f"{found}, and every expert needs {replication}; {remedy}")
        self.record("warning", text=f"{found}; the run starts without the others")

    def await_seated(self, grid: Grid, seated: Iterable[str], deadline_s: float) -> None:
        """Waits until at least two of the seated nodes are there: with fewer no vote can decide anything.

        Raises:
            RunError: when they do not come back in time; the run can go on later.
        """
        names = set(seated)
        start = self.clock.now()
        told = False
        while True:
            self.refresh(grid)
            present = [name for name in self.online if name in names]
            if len(present) >= FEWEST:
                return
            text = f"{len(present)} of {len(names)} nodes are online ({', '.join(present) or 'none'})"
            if self.clock.now() - start >= deadline_s:
                raise RunError(
                    f"{text} after {deadline_s:g} s (rounds.nodes_deadline_s), and a vote needs {FEWEST}; "
                    "start the missing nodes and go on with --resume, every committed round is safe"
                )
            if not told:
                self.record("warning", text=f"{text}; waiting up to {deadline_s:g} s for the others")
                told = True
            self.clock.sleep(0.5)

    def refresh(self, grid: Grid) -> None:
        """Asks nodes that are online and unknown who they are, and takes in what earlier ones answered; never waits.

        Nodes that went offline stay members, and are recognised by name when they come back.
        """
        self._online = set(grid.get_node_ids())
        self._refused = {node_id: why for node_id, why in self._refused.items() if node_id in self._online}
        self._asked &= self._online
        exchange = self._exchange = self._exchange or Exchange(grid=grid, clock=self.clock)
        known = {member.node_id for member in self.members.values()} | set(self._refused) | self._asked
        for node_id in sorted(self._online - known):
            message = Message(pack(self.request), dst_node_id=node_id, message_type=MessageType.QUERY)
            refusal = exchange.send(str(node_id), message, _DESCRIBE, DESCRIPTION)
            if refusal:
                self._refuse(node_id, f"node {node_id}", refusal)
            else:
                self._asked.add(node_id)
        described = []
        for arrival in exchange.receive(_DESCRIBE, math.inf, "", enough=lambda _: True):
            node_id = int(arrival.node)
            if arrival.reply is not None:
                self._asked.discard(node_id)
                try:
                    with boundary():
                        room = DESCRIPTION
                        if has_parcel(arrival.reply):
                            raise WireError("the description comes with a parcel")
                        described.append((node_id, read_header(arrival.reply, Description, room.header, room.values)))
                except WireError as error:
                    self._refuse(node_id, self._called(grid, node_id), str(error))
            elif arrival.kind in ("failed", "broken"):
                self._asked.discard(node_id)
                self._refuse(node_id, self._called(grid, node_id), arrival.reason)
        if described:
            self._look_up_names(grid)
        for node_id, description in sorted(described, key=lambda item: item[1].name):
            self._admit(node_id, description)

    @property
    def online(self) -> dict[str, Member]:
        """Members that Flower sees now, by name in order."""
        return {name: self.members[name] for name in sorted(self.members) if self.members[name].node_id in self._online}

    def _admit(self, node_id: int, description: Description) -> None:
        name = description.name
        reason = self._objection(node_id, description)
        if reason:
            self._refuse(node_id, name, reason)
            return
        back = name in self.members
        self.members[name] = Member(name=name, node_id=node_id, description=description)
        fields: dict[str, Any] = description.model_dump(mode="json", exclude={"protocol", "name", "refusal", "bases"})
        self.record("node_joined", node=name, back=back, **fields)

    def _objection(self, node_id: int, description: Description) -> str:
        name = description.name
        if description.refusal:
            return plain(description.refusal)
        if name in self.members and self.members[name].node_id in self._online:
            return f"another node called {name!r} takes part already; give every node a name of its own"
        registered = self._registered(description.name, node_id)
        if registered:
            return registered
        return disagreement(self.request, description) or ""

    def _registered(self, name: str, node_id: int) -> str:
        """Returns why a node is not who it says it is: the operator registered its key as `zone/name` or `name`."""
        told = self._registered_names.get(node_id, "")
        if told in ("", name) or told.rpartition("/")[2] == name:
            return ""
        return f"its key is registered as {told!r}, and it calls itself {name!r}; one of the two must be changed"

    def _called(self, grid: Grid, node_id: int) -> str:
        """Returns the name under which the operator registered a node that has not said who it is."""
        self._look_up_names(grid)
        return self._registered_names.get(node_id) or f"node {node_id}"

    def _look_up_names(self, grid: Grid) -> None:
        for node in grid.get_nodes():
            self._registered_names[node.node_id] = getattr(node, "name", "") or ""

    def _refuse(self, node_id: int, node: str, reason: str) -> None:
        self._refused[node_id] = f"{node}: {reason}"
        self.record("node_refused", node=node, reason=reason)
