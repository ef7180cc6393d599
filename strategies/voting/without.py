"""The vote of a block when one of two nodes that contradict each other does not count."""

from collections.abc import Mapping, Sequence, Set

from torch import Tensor

from strategies.voting.block_parts import Part
from strategies.voting.kernels import mean, norm
from strategies.voting.vote import LONGEST, Verdict, alike, shortening
from trfmoe_core.wire import Replica


def mean_without(
    left_out: Set[str], replicas: Mapping[str, Replica], parts: Sequence[Part], result: Tensor
) -> tuple[Tensor, Verdict]:
    """Returns the mean of the others, and the verdict. At least one node must be left.

    Each part of a replica counts with at most `LONGEST` median lengths of all replicas, those that are left out
    included: of two alone that differ much in length, nothing says which is too long. Replicas that are equal to the
    bit count once.

    Args:
        left_out: Nodes that do not count.
        replicas: Node -> update.
        parts: Of the block.
        result: Float32 memory for the mean.
    """
    names = sorted(replicas)
    counted = [members[0] for members in alike({n: r for n, r in replicas.items() if n not in left_out})]
    for part in parts:
        lengths = [norm(replicas[name], part) for name in names]
        factors = dict(zip(names, shortening(lengths, LONGEST), strict=True))
        for where in part:
            mean([replicas[name] for name in counted], [factors[name] for name in counted], result, where)
    accepted = tuple(name for name in names if name not in left_out)
    return result, Verdict(outcome="majority", accepted=accepted, outvoted=tuple(sorted(left_out & replicas.keys())))
