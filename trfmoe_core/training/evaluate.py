"""Held-out loss, also in bits per byte, which can be compared between tokenizers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trfmoe_core.counts import counted
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.out_of_memory import out_of_memory_explained
from trfmoe_core.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from trfmoe_core.data.batches.held_out import EvaluationSet


@dataclass(frozen=True)
class EvalMetrics:
    """Scores of a model on held-out text. They are not finite if the model is broken; the caller decides what to do."""

    loss: float
    """Nats a token."""
    bits_per_byte: float
    perplexity: float
    tokens: int


@torch.no_grad()
def evaluate(
    model: MoETransformer,
    evaluation_set: "EvaluationSet",
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    ranks: Ranks = ALONE,
    before_batch: Callable[[], None] = lambda: None,
) -> EvalMetrics:
    """Returns the mean loss over the set's unmasked targets. The batch size changes it only by rounding.

    Args:
        model: The model; it is moved to the device and set to evaluation.
        evaluation_set: Windows of held-out text.
        batch_size: Windows in one forward pass.
        device: Where to compute.
        precision: bfloat16 computes under autocast; float32 does not.
        ranks: The processes that share the windows. All of them must call, and all get the same result.
        before_batch: Called before each forward pass. What it raises ends the evaluation.

    Raises:
        RunError: If memory runs out.
    """
    with out_of_memory_explained(device, f"evaluating {counted(batch_size, 'window')} of held-out text at once"):
        model.to(device).eval()
        nats = torch.zeros((), dtype=torch.float64, device=device)
        for begin in range(ranks.rank * batch_size, len(evaluation_set.tokens), ranks.size * batch_size):
            before_batch()
            window = torch.from_numpy(evaluation_set.tokens[begin : begin + batch_size]).to(device)
            mask = torch.from_numpy(evaluation_set.mask[begin : begin + batch_size]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
                output = model(window[:, :-1], window[:, 1:], mask)
            nats += output.cross_entropy.double() * mask.sum()
    tokens = int(evaluation_set.mask.sum())
    total = float(ranks.sum(nats))
    loss = total / tokens
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return EvalMetrics(loss, total / math.log(2) / evaluation_set.num_bytes, perplexity, tokens)
