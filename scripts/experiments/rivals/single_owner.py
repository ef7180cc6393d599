"""One owner, as in mixtures of experts over the internet without replicas: nobody checks what it sends."""

import hashlib

from strategies.voting.kernels import mean
from strategies.voting.vote import RULES, BlockVote, Decision

_LOOKED_AT = 64
"""Values of an update by which the owner is drawn."""


@RULES.register("single_owner")
def single_owner_rule(block: BlockVote) -> Decision:
    """Returns one node's update as it is.

    A rule does not see which block it decides, so the owner is drawn in every round anew, from the bits of the
    updates. A liar among N nodes thus decides one block in N, as it would with owners that stay.
    """
    found = hashlib.sha256()
    for update in block.updates:
        mean([update], [1.0], block.result)
        found.update(block.result[:_LOOKED_AT].numpy().tobytes())
    chosen = int.from_bytes(found.digest()[:8], "little") % len(block.updates)
    mean([block.updates[chosen]], [1.0], block.result)
    return block.result, block.verdict("mean", [chosen])
