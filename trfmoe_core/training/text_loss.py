"""The loss of any causal language model on whole texts, per token and per byte of the text.

Shapes: B = windows, T = tokens of a window, V = rows of the embedding.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import ConfigError

Ints = npt.NDArray[np.int64]
Window = tuple[Ints, int]
"""Tokens of one window, inputs and last target, and how many of its targets, from the end, count."""
Logits = Callable[[Tensor], Tensor]
"""(B, T) tokens to (B, T, V) logits."""

Item = TypeVar("Item")

_LOGIT_BYTES = 128 * 2**20
_LARGEST_EXPONENT = 700.0
_TEXTS_AT_ONCE = 16


@dataclass(frozen=True)
class TextLoss:
    """What texts cost a model."""

    nats: float = 0.0
    """Summed over all tokens."""
    tokens: int = 0
    num_bytes: int = 0
    """UTF-8 bytes of the texts as they were given, whatever the tokenizer makes of them."""

    def __add__(self, other: "TextLoss") -> "TextLoss":
        return TextLoss(self.nats + other.nats, self.tokens + other.tokens, self.num_bytes + other.num_bytes)

    @property
    def bits_per_byte(self) -> float:
        """Bits for a byte of text; comparable between tokenizers. NaN without text."""
        return self.nats / math.log(2) / self.num_bytes if self.num_bytes else math.nan

    @property
    def perplexity(self) -> float:
        """Of a token; not comparable between tokenizers. NaN without tokens."""
        if not self.tokens:
            return math.nan
        loss = self.nats / self.tokens
        return math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf


def windows(tokens: Ints, context: int, stride: int) -> Iterator[Window]:
    """Yields windows in which every token but the first is a target that counts exactly once.

    A target has all tokens before it in its window: at least `context - stride` of them, as far as the text has them.

    Args:
        tokens: (N,) the text's bos, then its tokens.
        context: Inputs of a window, at most.
        stride: Tokens from one window to the next, from 1 to `context`.
    """
    begin, scored = 0, 0
    while scored < len(tokens) - 1:
        end = min(begin + context, len(tokens) - 1)
        yield tokens[begin : end + 1], end - scored
        begin, scored = begin + stride, end


@torch.no_grad()
def text_loss(
    logits: Logits,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    context: int,
    stride: int | None = None,
    device: torch.device | None = None,
) -> TextLoss:
    """Returns the loss on texts, each of which begins with the tokenizer's bos and is covered to its last token.

    Args:
        logits: The model, in evaluation.
        tokenizer: The model's.
        texts: Read once.
        context: Tokens of a window, at most.
        stride: As in `windows`; None: half of the context, so that a target sees at least half of a window.
        device: Where the model is; None: the CPU.

    Raises:
        ConfigError: The stride is not from 1 to `context`.
    """
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise ConfigError(f"a stride of {stride} tokens must be from 1 to the context of {context}")
    total = TextLoss()

    def cut() -> Iterator[Window]:
        nonlocal total
        for some in _grouped(texts, _TEXTS_AT_ONCE):
            for text, ids in zip(some, tokenizer.encode_batch(list(some)), strict=True):
                total += TextLoss(0.0, len(ids), len(text.encode("utf-8", "replace")))
                yield from windows(np.concatenate([[tokenizer.bos_id], ids]).astype(np.int64), context, stride)

    at_once = max(1, _LOGIT_BYTES // (4 * context * tokenizer.padded_vocab_size))
    nats = sum(_nats(logits, some, device or torch.device("cpu")) for some in _grouped(cut(), at_once))
    return total + TextLoss(nats)


def _nats(logits: Logits, some: tuple[Window, ...], device: torch.device) -> float:
    """Returns the summed loss of the targets that count; padding comes after every token that a target sees."""
    length = max(len(tokens) for tokens, _ in some)
    rows_BT = np.zeros((len(some), length), dtype=np.int64)
    counts_BT = np.zeros((len(some), length - 1), dtype=np.bool_)
    for row, (tokens, counted) in enumerate(some):
        rows_BT[row, : len(tokens)] = tokens
        counts_BT[row, len(tokens) - 1 - counted : len(tokens) - 1] = True
    tokens_BT = torch.from_numpy(rows_BT).to(device)
    mask_BT = torch.from_numpy(counts_BT).to(device)
    chosen = logits(tokens_BT[:, :-1])[mask_BT].float()
    return float(torch.nn.functional.cross_entropy(chosen, tokens_BT[:, 1:][mask_BT], reduction="sum").double())


def _grouped(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yields the items in tuples of `size`, the last of which may be shorter."""
    rest = iter(items)
    while some := tuple(islice(rest, size)):
        yield some
