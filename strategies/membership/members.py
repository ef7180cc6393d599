"""The nodes that take part: asks each of Flower's nodes who it is, and refuses those that do not fit.

A node without a key gets a new random id from Flower at each start. So nodes are known by name, and a node that comes
back with a new id is recognised by its description. A registered name belongs to its key. An unregistered name belongs
to the first node that used it, as long as that node is online.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from strategies.exchange.boundary import boundary
from strategies.exchange.in_flight import Clock, InFlight
from strategies.exchange.messages import DescribeRequest, Description, has_parcel, pack, read_header
from strategies.exchange.refusals import sentence
from strategies.exchange.size_limits import DESCRIPTION
from strategies.membership.awaited import LATE_S, TELL_S, awaited, unnamed, until
from strategies.membership.compatibility import disagreement
from strategies.membership.presence import Presence
from strategies.membership.refused_nodes import RefusedNodes
from strategies.membership.registration import Registry
from strategies.membership.remarks import remarks
from trfmoe_core.counts import counted
from trfmoe_core.errors import RunError, WireError

RecordEvent = Callable[..., None]
"""Called as `record(kind, **fields)` to write an event to the run's journal."""


FEWEST = 2
"""Fewest nodes that must be online when a round begins."""

PREPARING_PATIENCE = 10.0
"""How many times as long as the others a node may prepare its data before the run starts without it."""

LOOK_S = 5.0
"""How often newcomers are looked for while a round is under way."""

_DESCRIBE = 0


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node that takes part, with the id under which Flower knows it now. Its zone is the registered one."""

    name: str
    node_id: int
    description: Description
    registered: bool = False


class Federation:
    """The nodes of one run by name.

    Args:
        request: What every node must agree to.
        record: Takes events.
        clock: Time; tests put in their own.
        names: The names that a resumed run knows already.
        registered: Those of them that belong to a key, from `registered`.
    """

    def __init__(
        self,
        request: DescribeRequest,
        record: RecordEvent,
        clock: Clock,
        names: Iterable[str] = (),
        registered: Iterable[str] = (),
    ) -> None:
        self.request = request
        self.record = record
        self.clock = clock
        self.members: dict[str, Member] = {}
        self.owes: Callable[[str], bool] = lambda name: False
        """Whether a member works on a round; it answers no ping then."""
        self._refusals = RefusedNodes(record, clock)
        self._registry = Registry(registered)
        self._folded: dict[str, set[str]] = {}
        for known in names:
            self._folded.setdefault(known.casefold(), set()).add(known)
        self._name_of: dict[int, str] = {}
        self._online: set[int] = set()
        self._asked: dict[int, float] = {}
        self._described: dict[int, Description] = {}
        self._look_s = 0.0
        self._presence = Presence(clock)
        self._exchange: InFlight | None = None
        self._warned: set[str] = set()
        self._awaited, self._told_s = "", -math.inf

    @property
    def registered(self) -> list[str]:
        """Names that belong to a key; a resume needs them."""
        return self._registry.names

    def gather(
        self,
        grid: Grid,
        expected: int,
        replication: int,
        nodes_deadline_s: float,
        preparing_deadline_s: float,
        patience: float = math.inf,
    ) -> None:
        """Waits until `expected` nodes have described themselves, or the deadline has passed.

        A node that was asked and still prepares its data is waited for until `preparing_deadline_s`. Once
        `replication` nodes have described themselves, it is waited for `patience` times as long as the slowest of them
        took, and at least `nodes_deadline_s`. It can join later. A wait of more than a moment is recorded, for whom and
        until when: as `waiting`, since nodes take their time to start, and as a warning once they are late.

        Args:
            grid: Flower's way to the nodes.
            expected: How many nodes to wait for.
            replication: How many nodes train each expert; fewer cannot start.
            nodes_deadline_s: Seconds to wait for nodes that are not connected yet.
            preparing_deadline_s: Seconds to wait for the description of a connected node.
            patience: See above.

        Raises:
            RunError: Fewer than `replication` nodes can take part.
        """
        start = self.clock.now()
        present_before, slowest_s = 0, math.inf
        while len(self.online) < expected:
            self.refresh(grid)
            elapsed = self.clock.now() - start
            if len(self.online) > present_before and len(self.online) >= replication:
                slowest_s = max(elapsed, 0.1)
            present_before = len(self.online)
            if len(self.online) >= expected:
                return
            if len(self._refusals) >= expected and not self.members and not self._asked:
                break  # every expected node was refused; one refused node alone does not end the wait
            prepares = any(node_id not in self._refusals for node_id in self._asked)
            longest_s = min(preparing_deadline_s, max(nodes_deadline_s, patience * slowest_s))
            end_s = longest_s if prepares else nodes_deadline_s
            if elapsed >= end_s:
                break
            if elapsed >= TELL_S:
                self._tell_wait(grid, expected, end_s - elapsed, elapsed >= min(end_s / 2, LATE_S))
            self.clock.sleep(0.5)
        if len(self.online) >= expected:
            return
        present = ", ".join(self.online) or "none"
        waited = self.clock.now() - start
        found = f"{len(self.online)} of {expected} nodes can take part ({present}) after {waited:.0f} s"
        if len(self.online) < replication:
            refused = "; ".join(self._refusals.texts)
            remedy = f"refused: {refused}" if refused else "start the missing nodes (rounds.nodes_deadline_s)"
            if owing := unnamed(*self._owing(grid)):
                remedy += f"; {owing} did not say who they are (rounds.preparing_deadline_s)"
            raise RunError(f"{found}, and every expert needs {replication}; {remedy}")
        late = unnamed(*self._owing(grid))
        more = f"; {late} did not say who they are yet and can join later" if late else ""
        self.record("warning", text=f"{found}; the run starts without the others{more}")

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
            online = counted(len(names), "node is", "nodes are")
            text = f"{len(present)} of {online} online ({', '.join(present) or 'none'})"
            if self.clock.now() - start >= deadline_s:
                raise RunError(
                    f"{text} after {deadline_s:g} s (rounds.nodes_deadline_s), and a vote needs {FEWEST}; "
                    "start the missing nodes and go on with --resume"
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
        self._refusals.keep(self._online)
        self._asked = {node_id: since for node_id, since in self._asked.items() if node_id in self._online}
        self._presence.keep(self._online)
        exchange = self._listen(grid, self._online)
        for node_id in self._presence.lost(grid, self._asked):
            exchange.forget(str(node_id))
            del self._asked[node_id]
        described = [item for item in self._described.items() if item[0] in self._online]
        self._described.clear()
        if described:
            self._registry.look_up(grid)
        # Nodes with a key come first: they may take their name from a node without one.
        for node_id, description in sorted(described, key=lambda d: (not self._registry.of(d[0]).text, d[1].name)):
            self._admit(grid, node_id, description)

    def meanwhile(self, grid: Grid, enough: Callable[[float], bool] | None) -> Callable[[float], bool]:
        """Returns `enough`, extended so that every call also looks for new nodes."""

        def test(elapsed_s: float) -> bool:
            self.look(grid)
            return enough is not None and enough(elapsed_s)

        return test

    def look(self, grid: Grid) -> None:
        """Asks newcomers who they are while a round is under way; `refresh` decides about them. Never waits."""
        if self.clock.now() >= self._look_s:
            self._look_s = self.clock.now() + LOOK_S
            self._listen(grid, set(grid.get_node_ids()))

    def _listen(self, grid: Grid, online: set[int]) -> InFlight:
        exchange = self._exchange = self._exchange or InFlight(grid=grid, clock=self.clock)
        known = {member.node_id for member in self.members.values()} | set(self._asked) | set(self._described)
        for node_id in sorted(online - known):
            if self._refusals.may_ask(node_id):
                self._ask(exchange, node_id)
        for arrival in exchange.receive(_DESCRIBE, math.inf, "", enough=lambda _: True):
            node_id = int(arrival.node)
            if arrival.reply is not None:
                self._asked.pop(node_id, None)
                try:
                    with boundary():
                        self._described[node_id] = _description(arrival.reply)
                except WireError as error:
                    self._refuse(grid, node_id, str(error))
            elif arrival.kind in ("failed", "broken"):
                self._asked.pop(node_id, None)
                self._refuse(grid, node_id, arrival.reason)
        return exchange

    def name_of(self, node_id: int) -> str:
        """Returns the name of the member that Flower knows, or knew, by an id."""
        return self._name_of[node_id]

    @property
    def online(self) -> dict[str, Member]:
        """Members that Flower sees now, by name in order."""
        return {name: self.members[name] for name in sorted(self.members) if self.members[name].node_id in self._online}

    def _ask(self, exchange: InFlight, node_id: int) -> None:
        message = Message(pack(self.request), dst_node_id=node_id, message_type=MessageType.QUERY)
        refusal = exchange.send(str(node_id), message, _DESCRIBE, DESCRIPTION)
        if refusal:
            self._refusals.add(node_id, f"node {node_id}", refusal)
        else:
            self._asked[node_id] = self.clock.now()

    def _admit(self, grid: Grid, node_id: int, description: Description) -> None:
        name = description.name
        reason = self._objection(grid, node_id, description)
        if reason:
            self._refuse(grid, node_id, reason, name)
            return
        description, warning = self._registry.described(node_id, description)
        if warning and warning not in self._warned:
            self._warned.add(warning)
            self.record("warning", text=warning)
        back = name in self.members
        registered = bool(self._registry.of(node_id).text)
        self._registry.take(node_id)
        self._refusals.admit(node_id, name)
        self.members[name] = Member(name=name, node_id=node_id, description=description, registered=registered)
        self._name_of[node_id] = name
        self._folded.setdefault(name.casefold(), set()).add(name)
        fields: dict[str, Any] = description.model_dump(
            mode="json", exclude={"protocol", "name", "refusal", "bases", "frozen"}
        )
        self.record("node_joined", node=name, back=back, notes=remarks(description), **fields)

    def _tell_wait(self, grid: Grid, expected: int, left_s: float, late: bool) -> None:
        """Records for whom the start waits and until when; once, while these nodes are the same, and once when late."""
        owing, nameless = self._owing(grid)
        num_owing = len(owing) + nameless
        who = awaited(owing, nameless, expected - len(self.online) - num_owing - len(self._refusals), late)
        if who == self._awaited or self.clock.now() - self._told_s < TELL_S:
            return
        self._awaited, self._told_s = who, self.clock.now()
        present = f"{len(self.online)} of {expected} nodes are ready{' (' * bool(self.online)}"
        present += f"{', '.join(self.online)}{')' * bool(self.online)}"
        key = "preparing_deadline_s" if num_owing else "nodes_deadline_s"
        text = f"the run waits for {who}, at most {until(left_s)} (rounds.{key}); {present}"
        if late:
            self.record("warning", text=text)
        else:
            self.record("waiting", text=text)

    def _owing(self, grid: Grid) -> tuple[list[str], int]:
        """Returns who was asked who they are and has not answered: the names of their keys, and how many have none."""
        self._registry.look_up(grid)
        names = [self._registry.of(node_id).name for node_id in self._asked]
        return sorted(filter(None, names)), names.count("")

    def _objection(self, grid: Grid, node_id: int, description: Description) -> str:
        name = description.name
        return (
            self._refused_by_node(description)
            or self._registry.objection(node_id, name)
            or self._taken(grid, node_id, name)
            or disagreement(self.request, description)
            or ""
        )

    def _refused_by_node(self, description: Description) -> str:
        if description.refusal is None:
            return ""
        differs = disagreement(self.request, description) if description.refusal.code == "differs" else None
        return differs or sentence(description.refusal)

    def _taken(self, grid: Grid, node_id: int, name: str) -> str:
        """Returns why a name belongs to another node. What a newcomer says of itself is never the reason."""
        has_key = bool(self._registry.of(node_id).text)
        alike = sorted(self._folded.get(name.casefold(), set()) - {name})
        if alike and not has_key:
            return f"its name {name!r} differs from {alike[0]!r} in letter case only; give every node a name of its own"
        holder = self.members.get(name)
        if holder is None or holder.node_id not in self._online or (has_key and not holder.registered):
            return ""
        if self._presence.is_gone(grid, holder.node_id, works=self.owes(name)):
            return ""
        return (
            f"another node called {name!r} takes part already; give every node a name of its own, or, if this one was "
            "started again, wait until Flower has noticed that it was gone: it is asked again"
        )

    def _refuse(self, grid: Grid, node_id: int, reason: str, name: str = "") -> None:
        """Refuses a node under the name of its key, else under its own name if no other node has it."""
        if not name:
            self._registry.look_up(grid)
        name = self._registry.of(node_id).name or name
        member = self.members.get(name)
        if not name:
            node = f"node {node_id}"
        elif member is not None and member.node_id != node_id:
            node = f"node {node_id} ({name})"
        else:
            node = name
        self._refusals.add(node_id, node, reason)


def _description(answer: Message) -> Description:
    """Returns what a node says of itself; raises WireError when the answer is anything else than that."""
    if has_parcel(answer):
        raise WireError("the description comes with a parcel")
    return read_header(answer, Description, DESCRIPTION.header, DESCRIPTION.values)
