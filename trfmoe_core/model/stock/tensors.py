"""Where every weight of a stock model belongs in ours, and the reverse.

A `Piece` says it for one tensor; reading and writing follow the same pieces. Weights of experts have two spellings:
*stacked*, that of the state dicts of transformers 5 (a layer's experts in one tensor, as here), and that of files, with
a tensor for each matrix of each expert.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.stock.families.base import Family
from trfmoe_core.model.stock.settings import UnsupportedError

Place = tuple[int | slice, ...]


@dataclass(frozen=True)
class Piece:
    """One tensor of a stock model, or a part of it, and its place in a parameter of ours."""

    ours: str
    """Name of the parameter."""
    place: Place
    """Index into the parameter; () is all of it."""
    theirs: str
    """Name of the stock tensor."""
    part: Place = ()
    """Index into the stock tensor; () is all of it."""
    scale: float = 1.0
    """Ours is theirs times this."""


def pieces(family: Family, config: ModelConfig, *, stacked: bool = False) -> Iterator[Piece]:
    """Yields the pieces of a model with experts. A tied head has none."""
    yield from trunk_pieces(family, config)
    hidden = config.expert_width
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        if stacked:
            yield Piece(f"{ours}router.weight", (), f"{theirs}mlp.gate.weight")
            yield Piece(f"{ours}experts.w_gate_up_EGD", (), f"{theirs}mlp.experts.gate_up_proj")
            yield Piece(f"{ours}experts.w_down_EDF", (), f"{theirs}mlp.experts.down_proj")
            continue
        moe = f"{theirs}{family.moe}."
        gate, up, down = family.matrices
        yield Piece(f"{ours}router.weight", (), f"{moe}gate.weight")
        for e in range(config.experts):
            expert = f"{moe}experts.{e}."
            yield Piece(f"{ours}experts.w_gate_up_EGD", (e, slice(0, hidden)), f"{expert}{gate}.weight")
            yield Piece(f"{ours}experts.w_gate_up_EGD", (e, slice(hidden, 2 * hidden)), f"{expert}{up}.weight")
            yield Piece(f"{ours}experts.w_down_EDF", (e,), f"{expert}{down}.weight")


def trunk_pieces(family: Family, config: ModelConfig) -> Iterator[Piece]:
    """Yields the pieces of everything but routers and experts."""
    yield Piece("embedding.weight", (), "model.embed_tokens.weight")
    yield Piece("norm.weight", (), "model.norm.weight")
    if not config.tie_embeddings:
        yield Piece("head.weight", (), "lm_head.weight")
    rows = [heads * config.head_width for heads in (config.heads, config.num_kv_heads, config.num_kv_heads)]
    begins = [0, rows[0], rows[0] + rows[1]]
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        yield Piece(f"{ours}attention_norm.weight", (), f"{theirs}{family.attention_norm}.weight")
        yield Piece(f"{ours}moe_norm.weight", (), f"{theirs}{family.moe_norm}.weight")
        yield Piece(f"{ours}attention.output.weight", (), f"{theirs}self_attn.o_proj.weight")
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            for letter, begin, count in zip("qkv", begins, rows, strict=True):
                place = (slice(begin, begin + count),)
                yield Piece(f"{ours}attention.qkv.{kind}", place, f"{theirs}self_attn.{letter}_proj.{kind}")
        if config.attention in ("normed", "normed_whole"):
            yield Piece(f"{ours}attention.query_norm.weight", (), f"{theirs}self_attn.q_norm.weight")
            yield Piece(f"{ours}attention.key_norm.weight", (), f"{theirs}self_attn.k_norm.weight")
        if config.shared_width:
            shared, hidden = f"{theirs}mlp.shared_expert", config.shared_width
            yield Piece(f"{ours}shared.gate_up.weight", (slice(0, hidden),), f"{shared}.gate_proj.weight")
            yield Piece(f"{ours}shared.gate_up.weight", (slice(hidden, 2 * hidden),), f"{shared}.up_proj.weight")
            yield Piece(f"{ours}shared.down.weight", (), f"{shared}.down_proj.weight")
            yield Piece(f"{ours}shared.gate.weight", (), f"{shared}_gate.weight")


def to_stock(
    family: Family, config: ModelConfig, ours: Mapping[str, Tensor], *, stacked: bool = False
) -> dict[str, Tensor]:
    """Returns tensors by their stock names; they are views.

    A tied head is left out, as in transformers' files.

    Args:
        family: Whose names.
        config: The model's.
        ours: Tensors by parameter name: weights, gradients or moments.
        stacked: True: transformers' in-memory spelling.
    """
    return {piece.theirs: ours[piece.ours][piece.place] for piece in pieces(family, config, stacked=stacked)}


def is_stacked(names: Mapping[str, object]) -> bool:
    """Returns whether a model's experts are in one tensor a layer."""
    return any(name.endswith("mlp.experts.gate_up_proj") for name in names)


@torch.no_grad()
def fill(ours: Mapping[str, Tensor], found: Iterator[Piece], theirs: Mapping[str, Tensor]) -> set[str]:
    """Writes stock tensors into the parameters of a model, one after the other, and returns the names that were read.

    Args:
        ours: The parameters, which are overwritten.
        found: What goes where.
        theirs: The stock tensors. A mapping that reads each from its file keeps memory low.

    Raises:
        UnsupportedError: A tensor is missing, has another shape than config.json says, or holds a number that is not
            finite.
    """
    read = set()
    for piece in found:
        if piece.theirs not in theirs:
            raise UnsupportedError(f"tensor {piece.theirs} is missing, and config.json asks for it")
        tensor = theirs[piece.theirs]
        place = ours[piece.ours][piece.place]
        whole = list(tensor.shape)
        part = tensor[piece.part] if tensor.ndim >= len(piece.part) else tensor
        if part.shape != place.shape:
            needed = list(place.shape) if not piece.part else "another"
            raise UnsupportedError(f"{piece.theirs} has the shape {whole}, and by config.json it is {needed}")
        if not bool(torch.isfinite(part).all()):
            raise UnsupportedError(f"{piece.theirs} holds numbers that are not finite (NaN or infinity)")
        place.copy_(part)
        if piece.scale != 1.0:
            place.mul_(piece.scale)
        read.add(piece.theirs)
    return read


def refuse_unused(names: set[str], read: set[str], config: ModelConfig, theirs: Mapping[str, Tensor]) -> None:
    """Refuses tensors that would be ignored.

    Raises:
        UnsupportedError: There are some.
    """
    left = sorted(name for name in names - read if not name.endswith("rotary_emb.inv_freq"))
    if config.tie_embeddings and "lm_head.weight" in left:
        left.remove("lm_head.weight")
        if not torch.equal(theirs["lm_head.weight"], theirs["model.embed_tokens.weight"]):
            raise UnsupportedError("lm_head.weight differs from the embedding, though tie_word_embeddings is true")
    if left:
        layers = {int(match[1]) for name in left if (match := re.match(r"model\.layers\.(\d+)\.", name))}
        more = f" of {config.layers} layers" if layers and max(layers) >= config.layers else ""
        raise UnsupportedError(
            f"{len(left)} tensors such as {left[0]} have no place in this model{more}, and leaving them out would "
            "change what it computes"
        )
