"""Says where an honest node may be outvoted because it has little text.

Such a node reads the same text many times in a round, so its update fits that text and points elsewhere than those of
nodes with much text.
"""

from collections.abc import Mapping
from statistics import median

MUCH_LESS = 5
"""A node has little text if the others have this many times as much in the median."""


def little_text(name: str, train_tokens: Mapping[str, int], round_tokens: int) -> str:
    """Returns a sentence that names little text as a possible reason and what helps; empty if the node has enough.

    Args:
        name: The node that was outvoted.
        train_tokens: Node -> tokens of its text that it trains on.
        round_tokens: Tokens that the node trained on in the round; 0: unknown.
    """
    own = train_tokens.get(name, 0)
    others = [tokens for other, tokens in train_tokens.items() if other != name]
    typical = int(median(others)) if others else 0
    reasons = []
    if own * MUCH_LESS <= typical:
        reasons.append(f"the others have {typical:,} in the median")
    if own < round_tokens:
        reasons.append(f"a round trains on {round_tokens:,}, so it reads the same text again and again")
    if not own or not reasons:
        return ""
    return (
        f"{name} has {own:,} tokens of text, and {' and '.join(reasons)}; this may be why it was outvoted, without any "
        "bad intent: more text, fewer steps a round (rounds.local_steps) or a witness (docs/voting.md) help"
    )
