"""The faults of the drill: what one node, or two together, do to a federation, and what is promised about each."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from clients.conspiracy import Omniscient
from trfmoe_core.config import DrillConfig

Kind = Literal["clean", "silent", "plain", "adaptive"]
"""`silent` sends nothing that counts; `plain` sends something wrong; `adaptive` is built to pass the vote."""

PAIR_NODES = 7
"""From this many nodes on two liars are tried as well: below, any two hold whole experts between them."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, played by the last node or nodes of the federation.

    Attributes:
        name: In the table and for `--attacks`.
        kind: What it is compared with and what is promised.
        drill: What each faulty node plays by itself, by its settings.
        conspiracy: What the faulty nodes send when they know everything.
        latency_s: How much later a faulty node answers, in the drill's own time; infinite for never.
        liars: How many nodes are faulty.
        everywhere: Tried with every number of nodes and every rule; else with three nodes and `majority`, since a vote
            sees no difference to another fault.
    """

    name: str
    kind: Kind
    drill: DrillConfig | None = None
    conspiracy: Omniscient | None = None
    latency_s: float = 0.0
    liars: int = 1
    everywhere: bool = True

    def pair(self) -> "Fault":
        """The same played by two nodes together."""
        return Fault(
            name=f"{self.name} by two",
            kind=self.kind,
            drill=self.drill,
            conspiracy=self.conspiracy,
            latency_s=self.latency_s,
            liars=2,
        )


CLEAN = Fault(name="none", kind="clean", liars=0)
ABSENT = Fault(name="crash before", kind="silent", drill=DrillConfig(attack="crash"))
_SINGLE = [
    CLEAN,
    ABSENT,
    Fault(name="crash during", kind="silent", drill=DrillConfig(attack="crash_during"), everywhere=False),
    Fault(name="crash after", kind="silent", drill=DrillConfig(attack="crash_after"), everywhere=False),
    Fault(
        name="restart",
        kind="plain",
        drill=DrillConfig(attack="crash_after", from_round=2, to_round=2),
        everywhere=False,
    ),
    Fault(name="stall", kind="silent", latency_s=inf, everywhere=False),
    Fault(name="slow", kind="plain", latency_s=5.0, everywhere=False),
    Fault(name="nan", kind="silent", drill=DrillConfig(attack="nan")),
    Fault(name="inf", kind="silent", drill=DrillConfig(attack="inf"), everywhere=False),
    Fault(name="bit flip", kind="silent", drill=DrillConfig(attack="bit_flip"), everywhere=False),
    Fault(name="garbage", kind="silent", drill=DrillConfig(attack="garbage"), everywhere=False),
    Fault(name="replay", kind="plain", drill=DrillConfig(attack="replay"), everywhere=False),
    Fault(name="stale", kind="plain", drill=DrillConfig(attack="stale")),
    Fault(name="zero", kind="plain", drill=DrillConfig(attack="zero")),
    Fault(name="sign flip", kind="plain", drill=DrillConfig(attack="sign_flip")),
    Fault(name="x100", kind="plain", drill=DrillConfig(attack="scale", factor=100.0)),
    Fault(name="x-10", kind="plain", drill=DrillConfig(attack="scale", factor=-10.0), everywhere=False),
    Fault(name="gaussian", kind="plain", drill=DrillConfig(attack="gaussian", factor=1.0)),
    Fault(name="gaussian x10", kind="plain", drill=DrillConfig(attack="gaussian", factor=10.0), everywhere=False),
    Fault(name="label flip", kind="plain", drill=DrillConfig(attack="label_flip")),
    Fault(name="token lie", kind="plain", drill=DrillConfig(attack="token_lie", factor=1000.0)),
    Fault(name="inner product", kind="adaptive", conspiracy="inner_product"),
    Fault(name="a little is enough", kind="adaptive", conspiracy="little_enough"),
    Fault(name="stays close", kind="adaptive", conspiracy="stays_close"),
]
_PAIRED = ("sign flip", "label flip", "inner product", "a little is enough", "stays close")
FAULTS = {fault.name: fault for fault in _SINGLE} | {
    pair.name: pair for pair in (fault.pair() for fault in _SINGLE if fault.name in _PAIRED)
}


QUICK = ("none", "crash before", "nan", "sign flip", "x100", "stays close")


def faults_for(num_nodes: int) -> list[Fault]:
    """Returns the faults that a federation of this size is tried with."""
    return [
        fault
        for fault in FAULTS.values()
        if (fault.liars < 2 or num_nodes >= PAIR_NODES) and (fault.everywhere or num_nodes < PAIR_NODES)
    ]
