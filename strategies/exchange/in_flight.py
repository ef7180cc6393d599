"""Messages in flight: sends one message to each node and takes the replies one at a time, with deadlines of its own.

Flower reports a lost node late, under the SuperLink's id, or never. It does not tell a late node to stop. So a reply
is matched by the message that it answers, this module's clock decides when a wait ends, and a node that still works
on an earlier round gets no new request until its late reply is in.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from strategies.exchange.boundary import boundary, plain
from strategies.exchange.pulling import Puller
from strategies.exchange.size_limits import SizeLimits
from trfmoe_core.errors import WireError

SHORTEST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_SHARE = 0.05, 1.0, 0.01
"""Bounds of the pause between two looks for answers, and its share of the time since the last answer came."""

RELIEF = 10
"""A pause is at least so many times as long as a look that found nothing: each look is work for the SuperLink, which
answers the nodes at the same time."""

_LOST = {
    ErrorCode.NODE_UNAVAILABLE: "went offline before it answered; it takes part again when its SuperNode runs",
    ErrorCode.MESSAGE_UNAVAILABLE: "the SuperLink no longer has the request, as after a restart without its state.db",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its answer was too late or was lost on the way; it is asked again",
    ErrorCode.CLIENT_APP_CRASHED: "its client ended without an answer; its log says more",
}
"""What Flower reports of its own accord -> our words for it. Other errors carry words of the node's."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time as the strategy sees it; tests put in their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A message that waits for its reply."""

    node: str
    node_id: int
    round: int
    kind: str = ""
    """Its type, which the answer must have too; empty: any."""
    room: SizeLimits = field(default_factory=SizeLimits)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """How a message ended: with a `reply`, or with a `reason` why there is none.

    Kinds:
        reply: A reply to the current round.
        failed: Flower reports an error.
        broken: An answer came, cannot be read, and is not waited for again.
        silent: The wait is over and nothing came.
        late: An answer to an earlier round. Its content is not kept.
    """

    kind: Literal["reply", "failed", "broken", "silent", "late"]
    node: str
    round: int
    reply: Message | None = None
    reason: str = ""


@dataclass(kw_only=True)
class InFlight:
    """All messages of a run that are under way."""

    grid: Grid
    clock: Clock = field(default_factory=Clock)
    under_way: dict[str, Pending] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._puller = Puller(self.grid)
        self._of: dict[str, list[str]] = {}

    def busy(self, node: str) -> Pending | None:
        """Returns the message that a node still works on."""
        return next((self.under_way[message_id] for message_id in self._of.get(node, ())), None)

    def forget(self, node: str) -> None:
        """Drops a node's pending messages, because the node came back as another process."""
        dropped = self._of.pop(node, [])
        for message_id in dropped:
            del self.under_way[message_id]
        self._puller.forget(dropped)

    def send(self, node: str, message: Message, round_number: int, room: SizeLimits | None = None) -> str:
        """Sends a message to a node; returns why it was refused, or an empty text.

        Args:
            node: The name under which the answer is told.
            message: Emptied by Flower or not, as the grid likes.
            round_number: What `receive` knows the answer by.
            room: How large the answer may be; None: that of a header.
        """
        ids = [message_id for message_id in self.grid.push_messages([message]) if message_id]
        if not ids:
            return "Flower refused the message: the node is not registered or not online"
        told = message.metadata
        self._of.setdefault(node, []).append(ids[0])
        self.under_way[ids[0]] = Pending(
            node=node, node_id=told.dst_node_id, round=round_number, kind=told.message_type, room=room or SizeLimits()
        )
        return ""

    def receive(
        self, round_number: int, deadline_s: float, setting: str, enough: Callable[[float], bool] | None = None
    ) -> Iterator[Arrival]:
        """Yields what arrives until all nodes of the round have answered, the deadline has passed or it is enough.

        The grid keeps no copy of a reply that was yielded, so a caller that drops it frees its memory.

        Args:
            round_number: Replies to other rounds are late.
            deadline_s: From now.
            setting: The deadline's name, for the reason.
            enough: Asked with the seconds since the start whether the rest need not be waited for.
        """
        start = heard = self.clock.now()
        while self._waiting(round_number):
            begun = self.clock.now()
            for message_id in self._puller.answered({key: pending.room for key, pending in self.under_way.items()}):
                arrivals = self._arrivals(message_id, round_number) if message_id in self.under_way else []
                heard = self.clock.now() if arrivals else heard
                while arrivals:
                    yield arrivals.pop(0)
            now = self.clock.now()
            elapsed = now - start
            if elapsed >= deadline_s:
                yield from self._silent(round_number, f"no reply within {deadline_s:g} s ({setting})")
                return
            if enough is not None and self._waiting(round_number) and enough(elapsed):
                reason = f"no reply within {elapsed:.3g} s, when the others were enough (rounds.patience)"
                yield from self._silent(round_number, reason)
                return
            if self._waiting(round_number):
                look_s = now - begun if heard < begun else 0.0
                self.clock.sleep(min(pause_s(now - heard, look_s), deadline_s - elapsed))

    def _arrivals(self, message_id: str, round_number: int) -> list[Arrival]:
        """Returns the answers to a message. An answer that cannot be read is given up and never pulled again."""
        pending = self.under_way[message_id]
        try:
            with boundary():
                found = self._puller.pull(message_id, pending.room)
                answers = [reply for reply in found if reply.metadata.reply_to_message_id == message_id]
                arrivals = [_arrival(pending, reply, round_number) for reply in answers[:1]]
                if found and not answers:
                    raise WireError("the answer names another message than the one that was sent")
        except WireError as error:
            arrivals, answers = [_without_reply(pending, "broken", str(error), round_number)], []
        if arrivals:
            del self.under_way[message_id]
            self._of[pending.node].remove(message_id)
        second = f"a second answer to the request of round {pending.round}"
        return arrivals + [Arrival(kind="late", node=pending.node, round=pending.round, reason=second)] * (
            len(answers) - 1
        )

    def _waiting(self, round_number: int) -> bool:
        return any(pending.round == round_number for pending in self.under_way.values())

    def _silent(self, round_number: int, reason: str) -> Iterator[Arrival]:
        for pending in list(self.under_way.values()):
            if pending.round == round_number:
                yield Arrival(kind="silent", node=pending.node, round=round_number, reason=reason)


def pause_s(quiet_s: float, look_s: float = 0.0) -> float:
    """Returns how long to wait before the next look, when nothing has arrived for `quiet_s` seconds.

    Waiting costs ever fewer requests and at most a hundredth more time, or `RELIEF` times the last look. The next
    answer makes the pause short again.

    Args:
        quiet_s: Since the last answer.
        look_s: What the last look took, if it found nothing.
    """
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, PAUSE_SHARE * quiet_s, RELIEF * look_s))


def _arrival(pending: Pending, reply: Message, round_number: int) -> Arrival:
    told = reply.metadata
    if reply.has_error():
        return _without_reply(pending, "failed", _reason(reply.error), round_number)
    if told.src_node_id != pending.node_id:
        reason = f"the answer comes from Flower's node {plain(str(told.src_node_id), 40)}, which was not asked"
        return _without_reply(pending, "failed", reason, round_number)
    if pending.kind and told.message_type != pending.kind:
        raise WireError(f"the answer is of type {plain(told.message_type, 40)!r}, and {pending.kind!r} was asked")
    if pending.round != round_number:
        return _without_reply(pending, "reply", "", round_number)
    return Arrival(kind="reply", node=pending.node, round=pending.round, reply=reply)


def _without_reply(
    pending: Pending, kind: Literal["reply", "failed", "broken"], reason: str, round_number: int
) -> Arrival:
    """Returns an arrival without its reply; whatever answers an earlier round is late."""
    if pending.round != round_number:
        late = f"an answer to round {pending.round} in round {round_number}" + (f": {reason}" if reason else "")
        return Arrival(kind="late", node=pending.node, round=pending.round, reason=late)
    return Arrival(kind=kind, node=pending.node, round=pending.round, reason=reason)


def _reason(error: Error) -> str:
    """Returns an error that came in the place of an answer in words for the operator."""
    if known := _LOST.get(error.code):
        return known
    told = str(error.reason or "").removeprefix("refused: ")
    return plain(f"the node answers: {told or f'error {error.code}, and nothing more'}")
