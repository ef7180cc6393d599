"""The whole decoder-only mixture-of-experts transformer.

B = sequences, T = positions, N = B * T tokens, D = width, V = vocabulary, L = layers, E = experts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trfmoe_core.blocks import EXPERT_STACK
from trfmoe_core.config.model import ModelConfig
from trfmoe_core.config.training import Freeze
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.attention.base import ATTENTIONS, rotary_tables
from trfmoe_core.model.experts.base import EXPERTS, FROZEN
from trfmoe_core.model.frozen import freeze_parameters, is_frozen
from trfmoe_core.model.kv_cache import KeyValueCache, LayerCache
from trfmoe_core.model.layers import Projection, RMSNorm
from trfmoe_core.model.local_experts import LocalExperts, whole_layer
from trfmoe_core.model.loss import linear_cross_entropy
from trfmoe_core.model.moe import Router, RoutingStats, balance_loss, mix_experts
from trfmoe_core.model.shared_expert import SharedExpert

FEEDS_RESIDUAL = ("attention.output.weight", "experts.w_down_EDF", "experts.base.w_down_DF", "shared.down.weight")
"""Ends of the names of matrices whose output is added to the residual stream."""


@dataclass(frozen=True)
class ModelOutput:
    """Result of one forward pass."""

    logits_BTV: Tensor | None
    """None if targets were given: then the logits never exist as a whole."""
    cross_entropy: Tensor | None
    """Mean over unmasked targets in nats, float32; None without targets."""
    balance_loss: Tensor
    """Load-balancing loss, unweighted, float32."""
    z_loss: Tensor
    """Router z-loss (arXiv 2202.08906, eq. 5), mean over layers, unweighted, float32; 0 where its weight is 0."""
    expert_counts_LE: Tensor
    """Slots that each expert of each layer received, int64."""
    balance_weight: float
    z_loss_weight: float

    @property
    def loss(self) -> Tensor:
        """The training objective: cross-entropy plus the weighted balance loss and router z-loss.

        Raises:
            ConfigError: If `forward` was called without targets.
        """
        if self.cross_entropy is None:
            raise ConfigError("there is no loss, because forward() was called without targets; pass targets_BT")
        loss = self.cross_entropy + self.balance_weight * self.balance_loss
        return loss + self.z_loss_weight * self.z_loss if self.z_loss_weight else loss


class DecoderLayer(nn.Module):
    """Attention, then the mixture of experts, each with a norm before or after it, and added to the residual stream."""

    def __init__(self, config: ModelConfig, local: LocalExperts) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = ATTENTIONS.find(config.attention)(config)
        self.moe_norm = RMSNorm(config.width, config.norm_eps)
        self.router = Router(config, local)
        self.experts = EXPERTS.find(config.expert)(config, local)
        self.shared = SharedExpert(config) if config.shared_width else None
        self.norm_first = config.norm_position == "before"

    def forward(
        self,
        x_BTD: Tensor,
        cos_TP: Tensor,
        sin_TP: Tensor,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, RoutingStats]:
        """Returns the residual stream and the routing statistics.

        Args:
            x_BTD: The residual stream.
            cos_TP: This and the next three are those of `Attention.forward`.
            sin_TP: See there.
            cache: See there.
            mask_B1TT: See there.
            dtype: Type of products and activations; None: that of the residual stream.
        """
        dtype = dtype or x_BTD.dtype
        if not self.norm_first:
            added_BTD = self.attention(x_BTD.to(dtype), cos_TP, sin_TP, cache, mask_B1TT)
            x_BTD = x_BTD + self.attention_norm(added_BTD)
            added_BTD, stats = self._mixture(x_BTD.to(dtype))
            return x_BTD + self.moe_norm(added_BTD), stats
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD, dtype), cos_TP, sin_TP, cache, mask_B1TT)
        added_BTD, stats = self._mixture(self.moe_norm(x_BTD, dtype))
        return x_BTD + added_BTD, stats

    def _mixture(self, x_BTD: Tensor) -> tuple[Tensor, RoutingStats]:
        """Returns what the chosen experts, and the shared one, make of every row."""
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        mixed_ND, stats = mix_experts(x_ND, self.router, self.experts)
        if self.shared is not None:
            mixed_ND = mixed_ND + self.shared(x_ND)
        return mixed_ND.view_as(x_BTD), stats


class MoETransformer(nn.Module):
    """Computes what transformers' Mixtral computes on the same weights. Weights are unset until initialised or loaded.

    Under `torch.autocast` all products and activations have the autocast type; router probabilities, norm statistics,
    softmax and loss stay in float32, and on a CPU, where that costs little, the residual stream too.

    Args:
        config: The shape.
        vocab_size: The tokenizer's, padded; used unless the config gives another.
        local: Of each layer, which experts are on this node and which are trained; None: all are.
        bos_id: The token that begins a document; needed for `document_mask` if `forward` gets no documents.
        freeze: The parts that are never trained. They are buffers, not parameters, so they have no gradients and are
            in no block.

    Raises:
        ConfigError: If the config names a kind of expert or attention that does not exist.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        local: Sequence[LocalExperts] | None = None,
        bos_id: int | None = None,
        freeze: Freeze = "none",
    ) -> None:
        super().__init__()
        self.bos_id = bos_id
        self.config, self.vocab_size = config, config.vocab_size or vocab_size
        self.local = tuple(local or [whole_layer(config.experts)] * config.layers)
        self.embedding = Projection(config.width, self.vocab_size)
        self.layers = nn.ModuleList([DecoderLayer(config, layer) for layer in self.local])
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = Projection(config.width, self.vocab_size)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        cos_TP, sin_TP = rotary_tables(config.context, config.head_width, config.rope_theta, config.rope_scaling)
        self.register_buffer("cos_TP", cos_TP, persistent=False)
        self.register_buffer("sin_TP", sin_TP, persistent=False)
        self._weights = [name for name, _ in self.named_parameters()]
        freeze_parameters(self, {name for name in self._weights if is_frozen(name, freeze)})
        self.gradient_checkpointing = False
        """True: training keeps only each layer's input, and computes the rest again for the backward pass."""
        self.sum_counts: Callable[[Tensor], Tensor] | None = None
        """Sums slot counts over all devices that train on one batch together; called only in training."""

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
    ) -> ModelOutput:
        """Returns logits if no targets are given, and the losses otherwise.

        Args:
            tokens_BT: int64 token ids; T at most the context.
            targets_BT: The token that follows each position.
            mask_BT: True where a target counts; None counts all.
            document_BT: The number of each token's document: tokens see only their own document. None: with
                `document_mask` every bos begins a document, else there is one.

        Raises:
            ConfigError: If the sequence is longer than the context, or nothing says where documents begin.
        """
        device = tokens_BT.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.embedding.weight.dtype
        with torch.autocast(device, enabled=False):
            x_BTD, stats = self.hidden(tokens_BT, dtype, None, document_BT)
            counts_LE = stats.counts
            if self.training and self.sum_counts is not None:
                counts_LE = self.sum_counts(counts_LE)
            choosable = [layer.choosable for layer in self.local]
            balance = balance_loss(counts_LE, stats.prob, self.config.top_k, self.config.balance, choosable)
            logits_BTV = cross_entropy = None
            if targets_BT is None:
                logits_BTV = self.head(x_BTD)
            else:
                mask_N = None if mask_BT is None else mask_BT.reshape(-1)
                x_ND = x_BTD.view(-1, x_BTD.shape[-1])
                cross_entropy = linear_cross_entropy(x_ND, self.head.weight, targets_BT.reshape(-1), mask_N)
        weights = (self.config.balance_weight, self.config.z_loss_weight)
        return ModelOutput(logits_BTV, cross_entropy, balance, stats.z_loss.mean(), counts_LE, *weights)

    def hidden(
        self,
        tokens_BT: Tensor,
        dtype: torch.dtype,
        cache: KeyValueCache | None = None,
        document_BT: Tensor | None = None,
    ) -> tuple[Tensor, RoutingStats]:
        """Returns the normalised last hidden states (B, T, D) and the routing statistics of every layer.

        Args:
            tokens_BT: int64 token ids.
            dtype: Type of products and activations.
            cache: Holds the positions before these tokens, and these too afterwards; all are one document.
            document_BT: See `forward`.

        Raises:
            ConfigError: See `forward`.
        """
        begin = 0 if cache is None else cache.length
        end = begin + tokens_BT.shape[1]
        if end > self.config.context:
            raise ConfigError(
                f"a sequence of {end} tokens is longer than model.context {self.config.context}; "
                "cut it, or raise model.context"
            )
        cos_TP, sin_TP = self.get_buffer("cos_TP")[begin:end], self.get_buffer("sin_TP")[begin:end]
        x_BTD = nnf.embedding(tokens_BT, self.embedding.weight)
        if x_BTD.device.type != "cpu":
            x_BTD = x_BTD.to(dtype)
        mask_B1TT = self._document_mask(tokens_BT, document_BT) if cache is None else None
        stats = []
        for number, layer in enumerate(self.layers):
            inputs = (x_BTD, cos_TP, sin_TP, cache and cache.layers[number], mask_B1TT, dtype)
            if self.gradient_checkpointing and self.training:
                x_BTD, layer_stats = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                x_BTD, layer_stats = layer(*inputs)
            stats.append(layer_stats)
        return self.norm(x_BTD, dtype), RoutingStats(*(torch.stack(parts) for parts in zip(*stats, strict=True)))

    def _document_mask(self, tokens_BT: Tensor, document_BT: Tensor | None) -> Tensor | None:
        """Returns (B, 1, T, T), True where a position sees another; None if each sees all up to itself.

        A document's positions do not begin at 0; that changes nothing, because rotary positions are relative.
        """
        if document_BT is None:
            if not self.config.document_mask:
                return None
            if self.bos_id is None:
                raise ConfigError(
                    "model.document_mask: true, but nothing says where documents begin; pass document_BT to the "
                    "model, or build it with bos_id"
                )
            document_BT = (tokens_BT == self.bos_id).cumsum(dim=1)
        same_BTT = document_BT.unsqueeze(2) == document_BT.unsqueeze(1)
        return same_BTT.tril().unsqueeze(1)

    def named_weights(self) -> dict[str, Tensor]:
        """Returns all weights by name, trained and frozen, in an order that does not depend on what is frozen."""
        place = {name: number for number, name in enumerate(self._weights)}
        weights = dict(self.named_parameters()) | {n: w for n, w in self.named_buffers() if n in place}
        # A layer that was put in the place of another has names of its own.
        return dict(sorted(weights.items(), key=lambda item: place.get(item[0], len(place))))

    def frozen_weights(self) -> dict[str, Tensor]:
        """Returns by name the weights that are never trained; experts that another node trains are not among them."""
        trained = dict(self.named_parameters())
        return {name: weights for name, weights in self.named_weights().items() if name not in trained}

    @torch.no_grad()
    def halve_frozen(self) -> None:
        """Keeps frozen matrices in bfloat16. Where products are computed in it, no result changes.

        Matrices that are used in float32 all the same stay as they are: the embedding and routers.
        """
        for name, weights in self.frozen_weights().items():
            if weights.ndim > 1 and not name.endswith(("embedding.weight", "router.weight")):
                place, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(place), leaf, weights.bfloat16())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the model as torch does, but keeps a tied head tied, also if it is frozen."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.config.tie_embeddings:
            self.head.weight = self.embedding.weight
        return self

    def by_expert(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor | dict[int, Tensor]]:
        """Returns weights or gradients by parameter name, every stack split into its experts by number.

        The numbers are those of the whole model, also if this node has only some experts: what `BlockLayout` expects.
        """
        found: dict[str, Tensor | dict[int, Tensor]] = {}
        for name, tensor in tensors.items():
            match = EXPERT_STACK.match(name)
            if match is None:
                found[name] = tensor
                continue
            layer, stack = int(match[1]), match[2].removeprefix(FROZEN)
            numbers = self.local[layer].frozen if match[2].startswith(FROZEN) else self.local[layer].trained
            experts = found.setdefault(f"layers.{layer}.experts.{stack}", {})
            if isinstance(experts, dict):
                experts.update(zip(numbers, tensor, strict=True))
        return found

    def hidden_matrices(self) -> dict[str, tuple[int, ...]]:
        """Returns the parameters of attention and experts that are matrices.

        For each name, the numbers of rows of the separate matrices in it (of one expert, for a stack), from top to
        bottom. Embedding, head, router and norms are left out: an optimizer of matrices (Muon) does not take them.
        """
        found: dict[str, tuple[int, ...]] = {}
        for number, layer in enumerate(cast("Iterable[DecoderLayer]", self.layers)):
            found |= {f"layers.{number}.attention.{name}": rows for name, rows in layer.attention.matrices().items()}
            experts = layer.experts.matrices(self.config)
            found |= {f"layers.{number}.experts.{name}": rows for name, rows in experts.items()}
            if layer.shared is not None:
                found |= {f"layers.{number}.shared.{name}": rows for name, rows in layer.shared.matrices().items()}
        return found

    def block_values(self) -> dict[str, Tensor | dict[int, Tensor]]:
        """Returns views of all weights on this node, trained or not, split as by `by_expert`."""
        frozen = {name: buffer for name, buffer in self.named_buffers() if name.rpartition(".")[2].startswith(FROZEN)}
        return self.by_expert({**dict(self.named_parameters()), **frozen})

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draws all matrices from a normal distribution; sets all norm weights to 1 and all biases to 0.

        The standard deviation is `init_std`, divided by sqrt(2 layers) for matrices that feed the residual stream.
        Kinds of experts may have others.
        """
        kind = EXPERTS.find(self.config.expert)
        for name, weights in self.named_weights().items():
            if weights.ndim < 2:
                weights.fill_(0.0 if name.endswith(".bias") else 1.0)
                continue
            feeds_residual = name.endswith(FEEDS_RESIDUAL)
            std = self.config.init_std / math.sqrt(2 * self.config.layers) if feeds_residual else self.config.init_std
            if ".experts." in name:
                std = kind.initial_std(name.partition(".experts.")[2], weights.shape[-1], std)
            weights.normal_(0.0, std, generator=generator)


def parameter_shapes(
    config: ModelConfig, vocab_size: int, local: Sequence[LocalExperts] | None = None, freeze: Freeze = "none"
) -> dict[str, Tensor]:
    """Returns a model's parameters on the meta device: they have names and shapes and take no memory.

    Args:
        config: Sizes and parts of the model.
        vocab_size: Number of token ids.
        local: The experts on one node, by layer; None: the whole model.
        freeze: Parts that are no parameters, because they are not trained.
    """
    return dict(_without_memory(config, vocab_size, local, freeze).named_parameters())


def frozen_shapes(config: ModelConfig, vocab_size: int, freeze: Freeze) -> dict[str, Tensor]:
    """Returns `MoETransformer.frozen_weights` on the meta device."""
    return _without_memory(config, vocab_size, None, freeze).frozen_weights()


def _without_memory(
    config: ModelConfig, vocab_size: int, local: Sequence[LocalExperts] | None, freeze: Freeze
) -> MoETransformer:
    config = config.model_copy(update={"context": 8})  # no weight depends on it, and the rotary tables are real
    with torch.device("meta"):
        return MoETransformer(config, vocab_size, local, freeze=freeze)


def hidden_matrices(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns `MoETransformer.hidden_matrices` of a whole model, without a model in memory."""
    with torch.device("meta"):
        return MoETransformer(config, 2).hidden_matrices()


def build_model(
    config: ModelConfig, vocab_size: int, seed: int, bos_id: int | None = None, freeze: Freeze = "none"
) -> MoETransformer:
    """Returns a float32 model on the CPU. Its weights depend on the seed alone, not on torch's own random numbers.

    Args:
        config: Sizes and parts of the model.
        vocab_size: Number of token ids.
        seed: Seed of the weights.
        bos_id: Token that begins a document, if the tokenizer has one.
        freeze: The parts that are never trained; their weights are the same as without.
    """
    model = MoETransformer(config, vocab_size, bos_id=bos_id, freeze=freeze)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model
