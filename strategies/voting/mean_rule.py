"""`vote: mean`: plain federated averaging, for comparison. One liar decides."""

from strategies.voting.kernels import mean
from strategies.voting.vote import RULES, BlockVote, Decision, Verdict


@RULES.register("mean")
def mean_rule(block: BlockVote) -> Decision:
    """Returns the mean of all different replicas."""
    if len(block.names) == 1:
        return block.lone()
    mean(block.updates, [1.0] * len(block.updates), block.result)
    return block.result, Verdict(outcome="mean", accepted=tuple(block.names))
