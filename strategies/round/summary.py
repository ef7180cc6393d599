"""A round in numbers, for the journal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from strategies.exchange.messages import Training, TrainReply
from strategies.voting.vote import Verdict
from trfmoe_core.config import Recipe


def verdict_fields(verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Returns the verdicts as plain values, one entry a block."""
    return [{"block": block, **asdict(verdict)} for block, verdict in verdicts.items()]


def planned_drill(recipe: Recipe, name: str, round_number: int) -> str | None:
    """Returns the fault that the coordinator's own recipe lets a node play in a round; None in every other case."""
    drill = next((node.drill for node in recipe.nodes if node.name == name), None)
    return drill.label if drill and drill.active(round_number) else None


def reply_fields(reply: TrainReply, planned: str | None, bytes_down: int, bytes_up: int) -> dict[str, Any]:
    """Returns what an accepted reply says of the node's work.

    Args:
        reply: The node's.
        planned: What `planned_drill` says of the node and round: a liar must not pass for a drill.
        bytes_down: To the node.
        bytes_up: From the node.
    """
    believed = reply.drill if reply.drill == planned else None
    training = reply.training
    fields = {} if training is None else training.model_dump(mode="json", exclude={"seconds"})
    return {
        "status": "accepted",
        "reason": None,
        "drill": believed,
        **({"claims_drill": reply.drill} if reply.drill != believed else {}),
        "train_seconds": None if training is None else training.seconds,
        "bytes_down": bytes_down,
        "bytes_up": bytes_up,
        "spent": reply.spent,
        **fields,
    }


def round_summary(
    verdicts: Mapping[str, Verdict], trained: Sequence[Training], seconds: float, bytes_down: int, bytes_up: int
) -> dict[str, Any]:
    """Returns the fields of the round's line. Losses are medians over the nodes, so that no single node chooses them.

    Args:
        verdicts: The verdict of each block.
        trained: What each counted node measured.
        seconds: How long the round took.
        bytes_down: Bytes sent to all nodes.
        bytes_up: Bytes received from all nodes.
    """
    tokens = sum(training.tokens for training in trained)
    share = fmean(training.seconds for training in trained) / max(seconds, 1e-9) if trained else 0.0
    return {
        "train_loss": median(training.loss for training in trained) if trained else None,
        "seconds": seconds,
        "train_share": min(1.0, share),
        "bytes_down": bytes_down,
        "bytes_up": bytes_up,
        "tokens": tokens,
        "tokens_per_s": tokens / max(seconds, 1e-9),
        "outcomes": dict(Counter(verdict.outcome for verdict in verdicts.values())),
        "outvoted": dict(Counter(name for verdict in verdicts.values() for name in verdict.outvoted)),
    }
