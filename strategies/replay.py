"""Refuses an update that its node has sent before: a replay says nothing about the model of now."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from strategies.messages import TrainReply
from trfmoe_core.errors import WireError

REMEMBERED = 8
"""Updates of a node that are compared, the newest ones."""


class ReplayGuard:
    """Remembers what the nodes sent last, by the digests in their parcels' indices."""

    def __init__(self, state: Mapping[str, Sequence[str]] | None = None) -> None:
        self._seen: dict[str, list[str]] = {name: list(marks) for name, marks in (state or {}).items()}

    def state(self) -> dict[str, list[str]]:
        """Returns everything that a resume needs, as plain values."""
        return {name: list(marks) for name, marks in sorted(self._seen.items())}

    def check(self, name: str, reply: TrainReply) -> None:
        """Compares a node's checked reply with its earlier ones.

        Raises:
            WireError: when the node has sent exactly these updates before.
        """
        if _mark(reply) in self._seen.get(name, []):
            raise WireError("a replay: the node has sent exactly these updates before")

    def remember(self, name: str, reply: TrainReply) -> None:
        """Remembers a reply that counts."""
        seen = self._seen.setdefault(name, [])
        seen.append(_mark(reply))
        del seen[:-REMEMBERED]


def _mark(reply: TrainReply) -> str:
    """Returns a mark of the updates alone: the index itself can be written in many ways."""
    entries = json.loads(reply.index or '{"entries": []}')["entries"]
    updates = sorted((entry["block"], entry["sha256"]) for entry in entries)
    return hashlib.sha256(json.dumps(updates).encode()).hexdigest()[:32]
