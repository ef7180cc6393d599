"""Turns a dense model into a mixture of experts that computes the same before its first step (arXiv 2212.05055).

Every expert begins as the dense feed-forward network. With `slices` G an expert begins as one of G slices of it: the
router then has the same row for the G slices of one copy, so a token takes all of them with equal weight (virtual group
initialization, arXiv 2410.07524), and the slices' outputs are scaled by G.

E = experts, D = width, F = hidden width of an expert.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.experts.base import BASE, EXPERTS
from trfmoe_core.model.stock.families.base import Family
from trfmoe_core.model.stock.tensors import Piece, trunk_pieces
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.seeds import seed_for

SHARED_SHARE = 0.5
"""What the shared expert's gate lets through at first, sigmoid(0); the experts add the rest."""


@dataclass(frozen=True)
class Upcycling:
    """How a dense model becomes a mixture.

    Attributes:
        experts: Experts a layer.
        top_k: Experts a token.
        slices: Slices of the dense network, each of which is an expert; 1: every expert begins as the whole network.
        shared: True: one more network, which every token takes, begins as the dense one; together they compute the
            same.
        noise: Standard deviation of the noise on the weights of experts, as a share of each matrix's own.
        reinitialise: Share of the hidden neurons of each expert that begin anew (arXiv 2502.19261).
        low_rank: Rank of the changes that experts make to the dense network, which all share and nobody trains; None:
            every expert is a network of its own.
        alpha: These changes are multiplied by alpha / rank; None: as `ModelConfig` says.
        seed: Of the router's weights, the noise, the new neurons and the fixed factors of low-rank changes.
    """

    experts: int = 8
    top_k: int = 2
    slices: int = 1
    shared: bool = False
    noise: float = 0.0
    reinitialise: float = 0.0
    low_rank: int | None = None
    alpha: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.slices < 1 or self.experts < 1 or self.experts % self.slices:
            raise ConfigError(f"--slices {self.slices} does not divide --experts {self.experts}; choose a divisor")
        if self.top_k % self.slices or not self.slices <= self.top_k <= self.experts:
            raise ConfigError(
                f"--top-k {self.top_k}: with --slices {self.slices} and --experts {self.experts} a token takes a "
                f"multiple of {self.slices} up to {self.experts} experts; give --top-k {self.slices}, for instance"
            )
        if not 0 <= self.noise <= 1 or not 0 <= self.reinitialise < 1:
            raise ConfigError(
                f"--noise {self.noise} must be from 0 to 1, and --reinitialise {self.reinitialise} from 0 to below 1"
            )

        if self.low_rank is None:
            if self.alpha is not None:
                raise ConfigError(f"--alpha {self.alpha} is of low-rank experts; give --low-rank too")
        elif self.slices > 1 or self.noise or self.reinitialise:
            raise ConfigError(
                f"--low-rank {self.low_rank}: all experts share the whole dense network, which has no --slices, "
                "--noise or --reinitialise; leave them out"
            )

    def shape(self, dense_width: int) -> dict[str, object]:
        """Returns the fields of `ModelConfig` about experts.

        Raises:
            ConfigError: The slices do not divide the dense network.
        """
        if dense_width % self.slices:
            raise ConfigError(f"--slices {self.slices} does not divide the dense network's width {dense_width}")
        changes = {"expert": "low_rank", "rank": self.low_rank, "alpha": self.alpha}
        return {
            **(changes if self.low_rank else {}),
            "experts": self.experts,
            "top_k": self.top_k,
            "expert_width": dense_width // self.slices,
            "shared_width": dense_width if self.shared else 0,
        }

    def pieces(self, family: Family, config: ModelConfig) -> Iterator[Piece]:
        """Yields where the dense model's weights go; routers and the shared expert's gate have none."""
        hidden = config.expert_width
        gate, up, down = family.matrices
        # The shared network is no part of a dense model's own trunk.
        yield from trunk_pieces(family, config.model_copy(update={"shared_width": 0}))
        scale = self.slices * (1 - SHARED_SHARE if self.shared else 1.0)
        for layer in range(config.layers):
            ours, theirs = f"layers.{layer}.experts.", f"model.layers.{layer}.{family.moe}."
            if self.low_rank:
                base = f"layers.{layer}.{BASE}"
                yield Piece(f"{base}w_gate_up_GD", (slice(0, hidden),), f"{theirs}{gate}.weight")
                yield Piece(f"{base}w_gate_up_GD", (slice(hidden, 2 * hidden),), f"{theirs}{up}.weight")
                yield Piece(f"{base}w_down_DF", (), f"{theirs}{down}.weight", (), scale)
            for e in range(0 if self.low_rank else self.experts):
                begin = e % self.slices * hidden
                part = slice(begin, begin + hidden)
                yield Piece(f"{ours}w_gate_up_EGD", (e, slice(0, hidden)), f"{theirs}{gate}.weight", (part,))
                yield Piece(f"{ours}w_gate_up_EGD", (e, slice(hidden, 2 * hidden)), f"{theirs}{up}.weight", (part,))
                yield Piece(f"{ours}w_down_EDF", (e,), f"{theirs}{down}.weight", (slice(None), part), scale)
            if self.shared:
                ours, hidden_all = f"layers.{layer}.shared.", config.shared_width
                yield Piece(f"{ours}gate_up.weight", (slice(0, hidden_all),), f"{theirs}{gate}.weight")
                yield Piece(f"{ours}gate_up.weight", (slice(hidden_all, 2 * hidden_all),), f"{theirs}{up}.weight")
                yield Piece(f"{ours}down.weight", (), f"{theirs}{down}.weight")

    @torch.no_grad()
    def begin(self, model: MoETransformer) -> None:
        """Sets what has no piece in a model whose other weights are filled, and adds noise where asked."""
        kind = EXPERTS.find(model.config.expert)
        generator = torch.Generator().manual_seed(self.seed)
        std = model.config.init_std
        for name, weights in model.named_weights().items():
            if name.endswith("router.weight"):
                groups = torch.empty(self.experts // self.slices, weights.shape[1]).normal_(0, std, generator=generator)
                weights.copy_(groups.repeat_interleave(self.slices, dim=0))
            elif name.endswith("shared.gate.weight"):
                weights.zero_()
            elif self.low_rank and ".experts." in name:
                if not name.partition(BASE)[2].startswith("w_"):  # The base network is the dense one.
                    columns = weights.shape[-1]
                    spread = kind.initial_std(name.partition(".experts.")[2], columns, std)
                    weights.normal_(0, spread, generator=generator)
            elif ".experts." in name and (self.noise or self.reinitialise):
                self._vary(name, weights, generator)

    def _vary(self, name: str, stack: torch.Tensor, generator: torch.Generator) -> None:
        """Adds noise to every expert of a stack, and draws the chosen neurons anew with the matrix's own spread."""
        # The same neurons in both stacks of a layer: their generator depends on layer and expert alone.
        layer = int(name.split(".")[1])
        for e, expert in enumerate(stack):
            spread = float(expert.std())
            if self.noise:
                expert.add_(torch.empty_like(expert).normal_(0, spread * self.noise, generator=generator))
            if not self.reinitialise:
                continue
            down = name.endswith("w_down_EDF")
            hidden = expert.shape[1] if down else expert.shape[0] // 2
            chooser = torch.Generator().manual_seed(seed_for(self.seed, "neurons", str(layer), str(e)))
            chosen = torch.randperm(hidden, generator=chooser)[: round(hidden * self.reinitialise)]
            fresh = torch.empty_like(expert).normal_(0, spread, generator=generator)
            if down:
                expert[:, chosen] = fresh[:, chosen]
            else:
                rows = torch.cat([chosen, chosen + hidden])
                expert[rows] = fresh[rows]
