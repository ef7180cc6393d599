"""Krum (Blanchard et al., NIPS 2017): the one replica that is closest to its nearest others."""

from strategies.voting.kernels import mean, survey
from strategies.voting.vote import RULES, BlockVote, Decision

FAULTY = 1
"""Faulty replicas that are reckoned with."""


@RULES.register("krum")
def krum_rule(block: BlockVote) -> Decision:
    """Returns the replica with the least sum of squared distances to its `n - FAULTY - 2` nearest others.

    With three replicas that number is 0, so the nearest one counts. Krum's proof needs `2 * FAULTY + 3` replicas.
    """
    count = len(block.updates)
    if count == 1:
        return block.lone()
    sizes, dots = survey(block.updates, [1.0] * count, block.result)
    nearest = max(1, count - FAULTY - 2)

    def score(i: int) -> float:
        others = (j for j in range(count) if j != i)
        distances = sorted(sizes[i] ** 2 + sizes[j] ** 2 - 2 * dots[min(i, j)][max(i, j)] for j in others)
        return sum(distances[:nearest])

    chosen = min(range(count), key=score)
    mean([block.updates[chosen]], [1.0], block.result)
    return block.result, block.verdict("mean", [chosen])
