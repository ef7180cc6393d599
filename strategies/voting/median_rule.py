"""`vote: median`: the coordinate-wise median (Yin et al., arXiv 1803.01498)."""

from dataclasses import replace

from strategies.voting.kernels import median
from strategies.voting.majority_rule import majority_rule
from strategies.voting.vote import RULES, BlockVote, Decision, within_norm_ratio


@RULES.register("median")
def median_rule(block: BlockVote) -> Decision:
    """Returns the coordinate-wise median of three or more replicas; fewer are decided as by `majority`.

    A replica whose norm is beyond `norm_ratio` times the median norm is outvoted; the only such one stands alone.
    """
    if len(block.updates) < 3:
        return majority_rule(block)
    verdict = block.verdict("median", within_norm_ratio(block))
    alone = verdict.outvoted[0] if len(verdict.outvoted) == 1 else None
    return median(block.updates, result=block.result), replace(verdict, alone=alone)
