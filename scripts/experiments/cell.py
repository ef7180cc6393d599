"""A cell of an experiment, which is one federation to train, and its result."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One federation to train.

    Attributes:
        nodes: Number of nodes.
        rule: Of the vote.
        fault: Name of the fault that the attackers play, see `faults.py`.
        attackers: Names of the faulty nodes.
        setting: Name of the settings that the study varies, if it varies any.
    """

    nodes: int
    rule: str
    seed: int
    fault: str = "none"
    attackers: tuple[str, ...] = ()
    setting: str = ""

    def __str__(self) -> str:
        parts = [f"{self.nodes} nodes", self.setting, self.fault, "+".join(self.attackers), self.rule]
        return ", ".join([*filter(None, parts), f"seed {self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round showed of the nodes.

    Attributes:
        lost_blocks: Node -> blocks in which it was outvoted, or its replica missing or invalid.
        blamed: Nodes that stand badly after the round.
        struck: Nodes one of whose experts was struck out by itself, once for each such expert.
    """

    lost_blocks: dict[str, int] = field(default_factory=dict)
    blamed: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a cell.

    Attributes:
        losses: Node or domain -> held-out loss of the last model, nats a token; empty when there is none.
        ended: Whether the run came to its end.
        reason: Why it did not.
        seconds: Processor time.
        facts: Further measurements by name, such as the bytes of a round.
    """

    cell: Cell
    losses: dict[str, float]
    rounds: list[Round]
    ended: bool = True
    reason: str = ""
    seconds: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
