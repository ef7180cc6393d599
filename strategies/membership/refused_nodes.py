"""Refused nodes: they are asked again after a while, and each reason is recorded once.

A refused node may be repaired and restarted with the same id or another, and a taken name may become free. So a refusal
is temporary, and the time until the next question doubles.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from strategies.exchange.in_flight import Clock

FIRST_S = 5.0
LONGEST_S = 300.0


@dataclass
class _Refusal:
    text: str
    tries: int
    again_s: float


class RefusedNodes:
    """The refused nodes of one run.

    Args:
        record: Called as `record("node_refused", node=, reason=)`, once while a node's reason stays the same.
        clock: Time; tests put in their own.
    """

    def __init__(self, record: Callable[..., None], clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._refused: dict[int, _Refusal] = {}
        self._told: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._refused)

    @property
    def texts(self) -> list[str]:
        """The refused nodes with their reasons."""
        return sorted(refusal.text for refusal in self._refused.values())

    def add(self, node_id: int, node: str, reason: str) -> None:
        """Refuses a node for now.

        Args:
            node_id: Flower's.
            node: What it is called in the journal.
            reason: Why, and what to do.
        """
        before = self._refused.get(node_id)
        tries = before.tries + 1 if before else 0
        again_s = self._clock.now() + min(LONGEST_S, FIRST_S * 2 ** min(tries, 30))
        self._refused[node_id] = _Refusal(f"{node}: {reason}", tries, again_s)
        if self._told.get(node) != reason:
            self._told[node] = reason
            self._record("node_refused", node=node, reason=reason)

    def may_ask(self, node_id: int) -> bool:
        """Returns True if a node may be asked who it is, for the first time or again."""
        refusal = self._refused.get(node_id)
        return refusal is None or self._clock.now() >= refusal.again_s

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._refused

    def admit(self, node_id: int, node: str) -> None:
        """Forgets a node that takes part now. If it is refused again, that is recorded again."""
        self._refused.pop(node_id, None)
        self._told.pop(node, None)

    def keep(self, online: Collection[int]) -> None:
        """Forgets the waiting times of nodes that went offline, so that they are asked at once when they come back."""
        self._refused = {node_id: refusal for node_id, refusal in self._refused.items() if node_id in online}
