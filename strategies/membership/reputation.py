"""Counts the rounds in which a node stands alone, is convicted or is silent, and decides how long it then sits out.

A node that loses a vote together with others is not counted: honest nodes with different data lose such votes too.
A late answer is no silence: a late round adds no strike and removes none.

Strikes in a row miss a node that lies now and then. So the evidence of all rounds is added up in an e-process (Shin,
Ramdas and Rinaldo, arXiv 2203.03532). If an honest node stands alone or is convicted with probability `HONEST` or less
in each round, whatever happened before, its evidence ever reaches 1 / `FALSE_ALARM` with probability `FALSE_ALARM` or
less, however long the run is.

A node may lie about a single expert. So the same evidence is kept for every expert that a node lost alone, or of which
the witness struck its replica. It names the node and takes nothing from it: its replica has not counted anyway.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trfmoe_core.config import ReputationConfig

FALSE_ALARM = 0.01
"""Probability with which an honest node is ever named by the evidence of many rounds."""

HONEST, LIAR = 0.05, 0.5
"""Share of the rounds in which an honest node, at most, and a liar stand alone or are convicted."""

HONEST_EXPERT = 0.02
"""Share of the rounds in which an honest node, at most, loses a certain expert alone or has its replica struck."""

FORGOTTEN = 1e-6
"""Evidence about an expert that has fallen below this is dropped."""

Standing = Literal["good", "late", "alone", "convicted", "silent"]


@dataclass(kw_only=True)
class StrikeRecord:
    """One node's past.

    Attributes:
        strikes: Rounds in a row in which it was not good.
        out_until: Round in which it may come back.
        judged: Rounds in which a vote or the witness judged it.
        evidence: That it lies more often than an honest node may seem to; 1 / `FALSE_ALARM` names it.
        experts: Expert -> the same for this expert alone. The mean over the node's blocks names it.
        suspect_of: Experts about which it has been named.
    """

    strikes: int = 0
    last: Standing = "good"
    out_until: int | None = None
    suspect: bool = False
    judged: int = 0
    evidence: float = 0.0
    experts: dict[str, float] = field(default_factory=dict)
    suspect_of: list[str] = field(default_factory=list)

    def judge(self, bad: bool, lost: Collection[str] = ()) -> None:
        """Adds the evidence of one round.

        A lie may begin in any round; one that begins in the n-th has the weight 1 / (n (n + 1)), which sum up to 1.

        Args:
            bad: Whether the node stood alone or was convicted.
            lost: Experts that it lost alone, or of which its replica was struck.
        """
        self.judged += 1
        weight = 1 / (self.judged * (self.judged + 1))
        self.evidence = _grown(self.evidence + weight, bad, HONEST)
        # An expert that was never lost has no entry: what is left out only makes the evidence smaller.
        experts = {block: _grown(value + weight, block in lost, HONEST_EXPERT) for block, value in self.experts.items()}
        experts |= {block: _grown(weight, True, HONEST_EXPERT) for block in lost if block not in experts}
        self.experts = {block: value for block, value in sorted(experts.items()) if value >= FORGOTTEN}

    def is_named_by_experts(self, num_blocks: int) -> bool:
        """Returns True if the mean evidence over the node's blocks is enough."""
        return sum(self.experts.values()) >= num_blocks / FALSE_ALARM

    def is_over(self, strikes: int) -> bool:
        """Returns True if the node has enough strikes in a row or enough evidence against it."""
        return self.strikes >= strikes or self.evidence >= 1 / FALSE_ALARM


class Reputation:
    """Counts strikes. Deterministic, and resumable through `state`."""

    def __init__(self, config: ReputationConfig, state: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.config = config
        self.records = {name: StrikeRecord(**fields) for name, fields in (state or {}).items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """Returns everything that a resume needs, as plain values."""
        return {name: asdict(record) for name, record in sorted(self.records.items())}

    def observe(self, standings: Mapping[str, Standing], lost: Mapping[str, Collection[str]] | None = None) -> None:
        """Counts a round for every node that was asked to work.

        Args:
            standings: What the round showed of each.
            lost: Node -> experts that it lost alone, or of which the witness struck its replica.
        """
        for name, standing in standings.items():
            record = self.records.setdefault(name, StrikeRecord())
            if standing == "late":
                continue
            record.strikes = 0 if standing == "good" else record.strikes + 1
            record.last = standing
            if standing != "silent":
                record.judge(standing in ("alone", "convicted"), (lost or {}).get(name, ()))
            if not record.is_over(self.config.strikes):
                record.suspect = False

    def to_leave(self, seated: Iterable[str], smallest: int) -> list[str]:
        """Returns the seated nodes that must go now, worst first, so that `smallest` stay; the others are suspects."""
        seated = list(seated)
        over = [name for name in seated if self._record(name).is_over(self.config.strikes)]
        over.sort(key=lambda name: (-self._record(name).strikes, -self._record(name).evidence, name))
        return over[: max(0, len(seated) - smallest)]

    def reason(self, name: str) -> str:
        """Returns what speaks against a node that has enough strikes or evidence against it."""
        record = self._record(name)
        if record.strikes >= self.config.strikes:
            return f"{name} was {record.last} for {record.strikes} rounds in a row"
        return f"{name} stood alone or was convicted more often in {record.judged} rounds than an honest node would"

    def quarantine(self, name: str, round_number: int) -> int:
        """Sends a node out, and returns the round in which it may come back."""
        record = self._record(name)
        record.out_until = round_number + self.config.cool_off_rounds + 1
        record.strikes, record.evidence = 0, 0.0
        record.experts, record.suspect_of = {}, []
        return record.out_until

    def may_sit(self, name: str, round_number: int) -> bool:
        """Returns True if a node may hold experts in a round."""
        until = self._record(name).out_until
        return until is None or round_number >= until

    def newly_suspect(self, seated: Iterable[str]) -> list[str]:
        """Returns the seated nodes with enough against them that were not marked before, and marks them."""
        fresh = [
            name
            for name in seated
            if self._record(name).is_over(self.config.strikes) and not self._record(name).suspect
        ]
        for name in fresh:
            self._record(name).suspect = True
        return fresh

    def newly_suspect_of(self, blocks: Mapping[str, int]) -> dict[str, str]:
        """Returns the nodes that are named for a single expert now and were not named for it before, and the reason.

        Args:
            blocks: Seated node -> number of blocks that it holds.
        """
        reasons = {}
        for name, count in blocks.items():
            record = self._record(name)
            if not record.is_named_by_experts(count):
                continue
            worst = max(record.experts, key=lambda block: (record.experts[block], block))
            if worst not in record.suspect_of:
                record.suspect_of.append(worst)
                reasons[name] = (
                    f"{name} lost {worst} alone, or was struck there, more often in {record.judged} rounds than an "
                    "honest node would"
                )
        return reasons

    def _record(self, name: str) -> StrikeRecord:
        return self.records.setdefault(name, StrikeRecord())


def _grown(evidence: float, bad: bool, honest: float) -> float:
    return min(1e9, evidence * (LIAR / honest if bad else (1 - LIAR) / (1 - honest)))
