"""Draws text from a model, token by token.

T = positions, V = vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.kv_cache import KeyValueCache
from trfmoe_core.model.transformer import MoETransformer


def generate(
    model: MoETransformer,
    tokens: Sequence[int],
    max_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    *,
    stop_ids: Collection[int] = (),
    num_ids: int | None = None,
) -> Iterator[int]:
    """Yields new tokens. They depend on the seed alone, not on torch's own random numbers.

    The model sees the last `context` tokens of prompt and continuation; a longer prompt loses its beginning. While the
    text fits into the context, a token costs one position; after that the whole window is computed for every token.

    Args:
        model: The model; it is set to evaluation.
        tokens: The prompt, at least one token (the tokenizer's bos suffices).
        max_tokens: The most tokens to yield.
        temperature: Divides the logits; 0 takes the most probable token.
        top_p: Draws from the smallest set of tokens whose probabilities sum to this (arXiv 1904.09751).
        seed: Of the draws.
        stop_ids: Tokens that end the text; they are not yielded.
        num_ids: Tokens from this number on pad the vocabulary and are never drawn; None: there are none.

    Raises:
        ConfigError: At once, if the prompt is empty, a token is outside the vocabulary, or a setting is out of range.
        RunError: While iterating, if the logits are not finite.
    """
    _check(model, tokens, max_tokens, temperature, top_p)
    generator = torch.Generator().manual_seed(seed)
    return _tokens(
        model, tokens, max_tokens, lambda logits_V: _draw(logits_V, temperature, top_p, generator), stop_ids, num_ids
    )


def _tokens(
    model: MoETransformer,
    tokens: Sequence[int],
    max_tokens: int,
    draw: Callable[[Tensor], int],
    stop_ids: Collection[int],
    num_ids: int | None,
) -> Iterator[int]:
    context = model.config.context
    window, new = list(tokens)[-context:], len(tokens[-context:])
    cache = KeyValueCache(model.config.layers, context)
    model.eval()
    for _ in range(max_tokens):
        if len(window) > context:
            # The window has moved on, and with it the position of every token: the cache is of no use.
            window, cache, new = window[-context:], KeyValueCache(model.config.layers, context), context
        token = draw(_next_logits(model, window[-new:], cache)[:num_ids])
        if token in stop_ids:
            return
        yield token
        window, new = [*window, token], 1


@torch.no_grad()
def _next_logits(model: MoETransformer, tokens: Sequence[int], cache: KeyValueCache) -> Tensor:
    """Returns the logits (V) after `tokens`, which follow those in the cache; float32 on the CPU."""
    tokens_BT = torch.tensor([tokens], device=model.embedding.weight.device)
    hidden_BTD, _ = model.hidden(tokens_BT, model.embedding.weight.dtype, cache)
    logits_V: Tensor = model.head(hidden_BTD[0, -1]).float().cpu()
    if not logits_V.isfinite().all():
        raise RunError("the model's weights give no finite logits; take an earlier checkpoint")
    return logits_V


def _draw(logits_V: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    # Differences to the largest logit in float64 stay finite at any temperature.
    scaled_V = (logits_V.double() - logits_V.max()) / temperature
    prob_V, order_V = scaled_V.softmax(dim=-1).float().sort(descending=True, stable=True)
    before_V = prob_V.cumsum(dim=-1) - prob_V
    prob_V[before_V >= top_p] = 0.0
    return int(order_V[torch.multinomial(prob_V, 1, generator=generator)])


def _check(model: MoETransformer, tokens: Sequence[int], max_tokens: int, temperature: float, top_p: float) -> None:
    if not tokens or not all(0 <= token < model.vocab_size for token in tokens):
        raise ConfigError(
            f"the prompt has {counted(len(tokens), 'token')}; it needs at least one, each in "
            f"0..{model.vocab_size - 1}: "
            "begin with the tokenizer's bos"
        )
    if max_tokens < 0 or not temperature >= 0 or not 0 < top_p <= 1:
        raise ConfigError(
            f"max_tokens {max_tokens}, temperature {temperature}, top_p {top_p}: "
            "max_tokens and temperature must be 0 or more, top_p above 0 and at most 1"
        )
