"""Finds out by pings whether idle nodes are still there.

A SuperNode works on one message at a time, in order. An idle one answers a ping at once. If it does not, it is gone and
Flower has not noticed yet. If it answers a ping but not the request before it, it has lost that request.
"""

import math
from collections.abc import Collection, Mapping

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from strategies.exchange.in_flight import Clock, InFlight
from strategies.membership.lost_requests import PING

ANSWER_S = 60.0
"""Seconds within which an idle node answers a ping. Flower needs as long to notice that a node is gone."""

AGAIN_S = 300.0
"""Seconds until a node that has answered nothing is pinged again."""

_LABEL = 0


class Presence:
    """The pings of one run to nodes that have no part in a round.

    Args:
        clock: Time; tests put in their own.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pinged: dict[int, float] = {}
        self._exchange: InFlight | None = None

    def keep(self, online: Collection[int]) -> None:
        """Forgets the pings of nodes that went offline."""
        self._pinged = {node_id: since for node_id, since in self._pinged.items() if node_id in online}

    def is_gone(self, grid: Grid, node_id: int, works: bool) -> bool:
        """Returns True if a node was pinged while it was idle and has not answered. Sends that ping; never waits.

        Args:
            grid: Flower's way to the nodes.
            node_id: Flower's.
            works: Whether it works on a message now, and so cannot answer.
        """
        since = self._pinged.get(node_id)
        if since is None and not works:
            self._ping(grid, node_id)
        return since is not None and self._clock.now() - since >= ANSWER_S

    def lost(self, grid: Grid, asked: Mapping[int, float]) -> set[int]:
        """Reads answers to pings and returns the nodes that answered a ping but not the request before it.

        Args:
            grid: Flower's way to the nodes.
            asked: Nodes that owe an answer -> since when; they are pinged now and then.
        """
        lost = set()
        for arrival in self._exchange_of(grid).receive(_LABEL, math.inf, "", enough=lambda _: True):
            since = self._pinged.pop(int(arrival.node), None) if arrival.reply is not None else None
            if since is not None and asked.get(int(arrival.node), math.inf) < since:
                lost.add(int(arrival.node))
        for node_id, asked_at in asked.items():
            since = self._pinged.get(node_id, asked_at + ANSWER_S - AGAIN_S)
            if node_id not in lost and self._clock.now() - since >= AGAIN_S:
                self._ping(grid, node_id)
        return lost

    def _ping(self, grid: Grid, node_id: int) -> None:
        exchange = self._exchange_of(grid)
        exchange.forget(str(node_id))
        message = Message(RecordDict(), dst_node_id=node_id, message_type=f"{MessageType.QUERY}.{PING}")
        if not exchange.send(str(node_id), message, _LABEL):
            self._pinged[node_id] = self._clock.now()

    def _exchange_of(self, grid: Grid) -> InFlight:
        self._exchange = self._exchange or InFlight(grid=grid, clock=self._clock)
        return self._exchange
