"""The whole decoder-only mixture-of-experts transformer.

B = sequences, T = positions, N = B * T tokens, D = width, V = vocabulary, L = layers, E = experts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trfmoe_core.config.schema import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.attention import Attention, Projection, rotary_tables
from trfmoe_core.model.cache import KeyValueCache, LayerCache
from trfmoe_core.model.loss import linear_cross_entropy
from trfmoe_core.model.moe import Experts, Router, balance_loss, mix_experts
from trfmoe_core.model.norm import RMSNorm


@dataclass(frozen=True)
class ModelOutput:
    """What one forward pass gives."""

    logits_BTV: Tensor | None
    """Present if no targets were given: with targets, logits are never held as a whole."""
    cross_entropy: Tensor | None
    """Mean over unmasked targets in nats, float32; None without targets."""
    balance_loss: Tensor
    """Load-balancing loss, unweighted, float32."""
    expert_counts_LE: Tensor
    """Slots that each expert of each layer received, int64."""
    balance_weight: float

    @property
    def loss(self) -> Tensor:
        """The training objective: cross-entropy plus the weighted balance loss."""
        if self.cross_entropy is None:
            raise ConfigError("the loss was asked for, but forward() was called without targets; pass targets_BT")
        return self.cross_entropy + self.balance_weight * self.balance_loss


class DecoderLayer(nn.Module):
    """Attention, then the mixture of experts, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.moe_norm = RMSNorm(config.width, config.norm_eps)
        self.router = Router(config)
        self.experts = Experts(config)

    def forward(
        self, x_BTD: Tensor, cos_TP: Tensor, sin_TP: Tensor, cache: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the residual stream, the slots of each expert (E) and its mean router probability (E)."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TP, sin_TP, cache)
        normed_ND = self.moe_norm(x_BTD).view(-1, x_BTD.shape[-1])
        mixed_ND, counts_E, prob_E = mix_experts(normed_ND, self.router, self.experts)
        return x_BTD + mixed_ND.view_as(x_BTD), counts_E, prob_E


class MoETransformer(nn.Module):
    """Computes what transformers' Mixtral computes on the same weights. Weights are unset until initialised or loaded.

    Under `torch.autocast` the residual stream and all products are in the autocast type; router probabilities, norm
    statistics, softmax and loss stay in float32.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = Projection(config.width, vocab_size)
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.layers)])
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = Projection(config.width, vocab_size)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        cos_TP, sin_TP = rotary_tables(config.context, config.head_width, config.rope_theta)
        self.register_buffer("cos_TP", cos_TP, persistent=False)
        self.register_buffer("sin_TP", sin_TP, persistent=False)
        self.gradient_checkpointing = False
        """Whether training keeps only each layer's input and computes the rest again for the backward pass."""
        self.sum_counts: Callable[[Tensor], Tensor] | None = None
        """Adds up the experts' slots over all devices that train on one batch together; called in training only."""

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor | None = None, mask_BT: Tensor | None = None
    ) -> ModelOutput:
        """Returns logits if no targets are given, and the losses otherwise.

        Args:
            tokens_BT: int64 token ids; T at most the context.
            targets_BT: the token that follows each position.
            mask_BT: True where a target counts; None counts all.

        Raises:
            ConfigError: if the sequence is longer than the context.
        """
        device = tokens_BT.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.embedding.weight.dtype
        with torch.autocast(device, enabled=False):
            x_BTD, counts_LE, prob_LE = self.hidden(tokens_BT, dtype)
            if self.training and self.sum_counts is not None:
                counts_LE = self.sum_counts(counts_LE)
            balance = balance_loss(counts_LE, prob_LE, self.config.top_k, self.config.balance)
            logits_BTV = cross_entropy = None
            if targets_BT is None:
                logits_BTV = self.head(x_BTD)
            else:
                mask_N = None if mask_BT is None else mask_BT.reshape(-1)
                x_ND = x_BTD.view(-1, x_BTD.shape[-1])
                cross_entropy = linear_cross_entropy(x_ND, self.head.weight, targets_BT.reshape(-1), mask_N)
        return ModelOutput(logits_BTV, cross_entropy, balance, counts_LE, self.config.balance_weight)

    def hidden(
        self, tokens_BT: Tensor, dtype: torch.dtype, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the normed last hidden states (B, T, D), slots (L, E) and mean router probabilities (L, E).

        Args:
            cache: Holds the positions before these tokens, and these afterwards.
        """
        begin = 0 if cache is None else cache.length
        end = begin + tokens_BT.shape[1]
        if end > self.config.context:
            raise ConfigError(
                f"a sequence of {end} tokens is longer than model.context {self.config.context}; "
                "cut it, or raise model.context"
            )
        cos_TP, sin_TP = self.get_buffer("cos_TP")[begin:end], self.get_buffer("sin_TP")[begin:end]
        x_BTD = nnf.embedding(tokens_BT, self.embedding.weight).to(dtype)
        counts, probs = [], []
        for number, layer in enumerate(self.layers):
            given = (x_BTD, cos_TP, sin_TP, cache and cache.layers[number])
            if self.gradient_checkpointing and self.training:
                x_BTD, counts_E, prob_E = checkpoint(layer, *given, use_reentrant=False)
            else:
                x_BTD, counts_E, prob_E = layer(*given)
            counts.append(counts_E)
            probs.append(prob_E)
        return self.norm(x_BTD), torch.stack(counts), torch.stack(probs)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draws all weights: normal with `init_std`, what feeds the residual stream scaled by 1/sqrt(2 layers)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0)
                continue
            feeds_residual = name.endswith(("attention.output.weight", "experts.w_down_EDF"))
            scale = 1.0 / math.sqrt(2 * self.config.layers) if feeds_residual else 1.0
            parameter.normal_(0.0, self.config.init_std * scale, generator=generator)


def build_model(config: ModelConfig, vocab_size: int, seed: int) -> MoETransformer:
    """Returns a float32 model on the CPU whose weights follow from the seed alone; torch's own RNG is untouched.

    Args:
        vocab_size: The tokenizer's, padded; the rows that the config asks for go before.
    """
    model = MoETransformer(config, config.vocab_size or vocab_size)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model
