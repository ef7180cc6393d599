"""Writes low-rank experts out as full ones, which every other program knows."""

import torch

from trfmoe_core.errors import RunError
from trfmoe_core.model.experts.low_rank import LowRankExperts
from trfmoe_core.model.transformer import MoETransformer

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit, in float32."""
CHECKED_TOKENS = 64


@torch.no_grad()
def merged(model: MoETransformer) -> MoETransformer:
    """Returns a model that computes the same with full experts; the model itself if it has no low-rank ones.

    Args:
        model: Whole, in float32, on the CPU.

    Raises:
        RunError: The logits of both differ.
    """
    if not any(isinstance(layer.experts, LowRankExperts) for layer in model.layers):
        return model
    config = model.config.model_copy(update={"expert": "swiglu"})
    full = MoETransformer(config, model.vocab_size, bos_id=model.bos_id)
    weights = model.named_weights()
    for number, layer in enumerate(model.layers):
        if isinstance(layer.experts, LowRankExperts):
            stacks = layer.experts.merged(config)
            weights |= {f"layers.{number}.experts.{name}": stack for name, stack in stacks.items()}
    for name, parameter in full.named_parameters():
        parameter.copy_(weights[name])
    difference = _difference(model, full)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the logits of the merged experts differ by {difference:.1e} of the largest (limit {TOLERANCE:g}); please "
            "report this"
        )
    return full


def _difference(model: MoETransformer, full: MoETransformer) -> float:
    length = min(CHECKED_TOKENS, model.config.context)
    tokens = torch.randint(0, model.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    documents = torch.zeros_like(tokens)
    ours, theirs = (one(tokens, document_BT=documents).logits_BTV for one in (model, full))
    return float((ours - theirs).abs().max() / ours.abs().max())
