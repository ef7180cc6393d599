"""Asks nodes that owe an answer whether they still take messages at all.

A SuperNode works on one message at a time, in order. So a node that answers a ping is idle, and the answer that it owes
was lost, for instance because its SuperNode was restarted under the same key. A node that answers neither for long is
either very slow, or its SuperNode waits for ever for a client that ended without an answer, while Flower still
reports it online.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from strategies.exchange.in_flight import Clock, InFlight, Pending

PING = "ping"
PATIENCE_S = 120.0
_LABEL = 0


@dataclass
class _Ping:
    sent_s: float
    warned: bool = False


class Pings:
    """The pings of one run.

    Args:
        record: Called as `record(kind, **fields)` with a warning about a node that answers nothing.
        clock: Time; tests put in their own.
    """

    def __init__(self, record: Callable[..., None], clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._pings: dict[str, _Ping] = {}
        self._exchange: InFlight | None = None

    def freed(self, grid: Grid, busy: Mapping[str, Pending]) -> set[str]:
        """Returns the nodes that owe an answer and are free all the same; sends pings to the others, and never waits.

        Args:
            grid: Flower's way to the nodes.
            busy: Nodes that are online -> the message that they have not answered.
        """
        exchange = self._exchange = self._exchange or InFlight(grid=grid, clock=self._clock)
        for name in set(self._pings) - set(busy):
            del self._pings[name]
            exchange.forget(name)
        answered = set()
        for arrival in exchange.receive(_LABEL, float("inf"), "", enough=lambda _: True):
            if arrival.kind == "silent":
                continue
            known = self._pings.pop(arrival.node, None)
            if known is not None and arrival.reply is not None:
                answered.add(arrival.node)
            elif known is not None and arrival.kind == "broken":
                reason = f"the answer to a ping: {arrival.reason}"
                self._record(
                    "node_reply", round=busy[arrival.node].round, node=arrival.node, status="dropped", reason=reason
                )
        for name, pending in busy.items():
            if name in answered:
                continue
            if name not in self._pings:
                message = Message(RecordDict(), dst_node_id=pending.node_id, message_type=f"{MessageType.QUERY}.{PING}")
                if not exchange.send(name, message, _LABEL):
                    self._pings[name] = _Ping(self._clock.now())
            self._warn(name, pending)
        return answered

    def _warn(self, name: str, pending: Pending) -> None:
        ping = self._pings.get(name)
        waited_s = self._clock.now() - ping.sent_s if ping else 0.0
        if ping is None or ping.warned or waited_s < PATIENCE_S:
            return
        ping.warned = True
        self._record(
            "warning",
            text=f"{name} is online, and has answered neither round {pending.round} nor a ping for {waited_s:.0f} s: "
            "it is very slow, or its SuperNode is wedged, as by a client that was terminated; look at its log and "
            "start it again",
        )
