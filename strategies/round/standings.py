"""What a round showed of each node: whether it answered, was late, stood alone, or was convicted."""

from collections.abc import Collection, Iterable, Mapping

from strategies.membership.reputation import Standing
from strategies.voting.vote import Verdict

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
    standings: dict[str, Standing] = {}
    for name in names:
        if name not in replied:
            standings[name] = "late" if name in late else "silent"
            continue
        if name in convicted:
            standings[name] = "convicted"
            continue
        took_part = [v for v in verdicts.values() if name in v.accepted or name in v.outvoted]
        alone = [v for v in took_part if v.alone == name]
        lost = bool(alone) and len(alone) >= ALONE_SHARE * len(took_part)
        standings[name] = "alone" if lost else "good"
    return standings
