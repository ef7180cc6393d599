"""The nodes' measurements of each round's model on their held-out text, and the best round by them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import MetricRecord

from strategies.exchange.messages import TrainReply
from strategies.round.best_round import BestRound, robust


class Evaluations:
    """The evaluations of one run.

    Args:
        record: Called as `record("evaluated", **fields)`.
        partial: Whether nodes measure the model with only the experts that they hold.
        best: What `best` returned, to go on from there.
    """

    def __init__(self, record: Callable[..., None], partial: bool, best: Mapping[str, Any] | None) -> None:
        self._record = record
        self._partial = partial
        self._best = BestRound(state=best)

    @property
    def best(self) -> dict[str, Any]:
        """The state of the best round, as plain values; see `BestRound.state`."""
        return self._best.state()

    def take(self, round_number: int, replies: Mapping[str, TrainReply]) -> MetricRecord | None:
        """Records the measurements of a round's model. Returns None if there are none."""
        measured = {name: reply.evaluation for name, reply in sorted(replies.items()) if reply.evaluation}
        if not measured:
            return None
        loss = robust(evaluation.loss for evaluation in measured.values())
        by_node = {name: evaluation.bits_per_byte for name, evaluation in measured.items()}
        bits = robust(by_node.values())
        # The untrained model has no checkpoint that could be exported.
        best = self._best.tell(round_number, by_node, candidate=round_number > 0)
        self._record(
            "evaluated",
            round=round_number,
            loss=loss,
            bits_per_byte=bits,
            perplexity=math.exp(min(loss, 700.0)),
            nodes={name: evaluation.model_dump(mode="json") for name, evaluation in measured.items()},
            experts="held" if self._partial else "all",
            best=best,
        )
        return MetricRecord({"loss": loss, "bits_per_byte": bits})
