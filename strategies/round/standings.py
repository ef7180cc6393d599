"""What a round showed of each node: whether it answered, was late, stood alone, or was convicted."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from strategies.membership.reputation import Standing
from strategies.voting.vote import Verdict
from trfmoe_core.blocks import TRUNK

ALONE_SHARE = 0.5
"""Share of its votes in which a node must be the only loser to stand alone in the round."""


def standings_of(
    names: Iterable[str],
    verdicts: Mapping[str, Verdict],
    replied: Collection[str],
    convicted: Collection[str] = (),
    late: Collection[str] = (),
) -> dict[str, Standing]:
    """Returns what a round showed of the seated nodes.

    Args:
        names: The nodes.
        verdicts: Of the round's votes.
        replied: Who sent a usable reply.
        convicted: By the witness.
        late: Who sent none, and still is, or was, within the time that the others' pace gives it.
    """
    took_part, alone = Counter[str](), Counter[str]()
    for verdict in verdicts.values():
        took_part.update({*verdict.accepted, *verdict.outvoted})
        if verdict.alone is not None:
            alone[verdict.alone] += 1
    standings: dict[str, Standing] = {}
    for name in names:
        if name not in replied:
            standings[name] = "late" if name in late else "silent"
            continue
        if name in convicted:
            standings[name] = "convicted"
            continue
        lost = alone[name] > 0 and alone[name] >= ALONE_SHARE * took_part[name]
        standings[name] = "alone" if lost else "good"
    return standings


def lost_experts(verdicts: Mapping[str, Verdict], struck: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the experts that each node lost alone, or of which the witness struck its replica.

    Args:
        verdicts: Of the round's votes.
        struck: Expert -> node, by the witness.
    """
    lost: dict[str, list[str]] = {}
    for block, verdict in verdicts.items():
        name = struck.get(block, verdict.alone)
        if name is not None and block != TRUNK:
            lost.setdefault(name, []).append(block)
    return lost
