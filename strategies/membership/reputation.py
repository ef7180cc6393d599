"""Counts the rounds in which a node stands alone, is convicted or is silent, and decides how long it then sits out.

A node that loses a vote together with others is not counted: honest nodes with different data lose such votes too.
A late answer is no silence: a late round adds no strike and removes none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trfmoe_core.config import ReputationConfig

Standing = Literal["good", "late", "alone", "convicted", "silent"]


@dataclass(kw_only=True)
class StrikeRecord:
    """One node's recent past: rounds in a row in which it was not good, and until when it sits out."""

    strikes: int = 0
    last: Standing = "good"
    out_until: int | None = None
    suspect: bool = False


class Reputation:
    """Counts strikes. Deterministic, and resumable through `state`."""

    def __init__(self, config: ReputationConfig, state: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.config = config
        self.records = {name: StrikeRecord(**fields) for name, fields in (state or {}).items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """Returns everything that a resume needs, as plain values."""
        return {name: asdict(record) for name, record in sorted(self.records.items())}

    def observe(self, standings: Mapping[str, Standing]) -> None:
        """Counts a round for every node that was asked to work."""
        for name, standing in standings.items():
            record = self.records.setdefault(name, StrikeRecord())
            if standing == "late":
                continue
            record.strikes = 0 if standing == "good" else record.strikes + 1
            record.last = standing
            if standing == "good":
                record.suspect = False

    def to_leave(self, seated: Iterable[str], smallest: int) -> list[str]:
        """Returns the seated nodes that must go now, worst first, so that `smallest` stay; the others are suspects."""
        seated = list(seated)
        over = [name for name in seated if self._record(name).strikes >= self.config.strikes]
        over.sort(key=lambda name: (-self._record(name).strikes, name))
        return over[: max(0, len(seated) - smallest)]

    def quarantine(self, name: str, round_number: int) -> int:
        """Sends a node out, and returns the round in which it may come back."""
        record = self._record(name)
        record.out_until = round_number + self.config.cool_off_rounds + 1
        record.strikes = 0
        return record.out_until

    def may_sit(self, name: str, round_number: int) -> bool:
        """Returns True if a node may hold experts in a round."""
        until = self._record(name).out_until
        return until is None or round_number >= until

    def newly_suspect(self, seated: Iterable[str]) -> list[str]:
        """Returns the seated nodes with enough strikes that were not marked before, and marks them."""
        fresh = [
            name
            for name in seated
            if self._record(name).strikes >= self.config.strikes and not self._record(name).suspect
        ]
        for name in fresh:
            self._record(name).suspect = True
        return fresh

    def _record(self, name: str) -> StrikeRecord:
        return self.records.setdefault(name, StrikeRecord())
