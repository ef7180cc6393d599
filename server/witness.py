"""The witness: text on the coordinator, and the loss of candidate global blocks on fresh windows of it every round.

W = windows, T = context.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from strategies.witness import Loss
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.data.batches import BatchStream
from trfmoe_core.data.corpus import prepare_corpus
from trfmoe_core.data.store import TokenStore
from trfmoe_core.data.tokenizer import Tokenizer
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.loss import linear_cross_entropy
from trfmoe_core.model.transformer import build_model
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.device import resolve_device, resolve_precision


class Witness:
    """Measures global blocks on text that the coordinator trusts. Holds one model of its own.

    Args:
        recipe: The run; its `witness` section says which windows.
        vocab_size: The tokenizer's, padded.
        bos_id: The tokenizer's, for models that mask documents.
        sources: One store for each of the section's sources.
    """

    def __init__(
        self, recipe: Recipe, vocab_size: int, sources: Sequence[TokenStore], bos_id: int | None = None
    ) -> None:
        if recipe.witness is None:
            raise ConfigError("witness: null, so there is no text to judge by; give it data or do without")
        self.recipe, self.config, self.sources = recipe, recipe.witness, list(sources)
        self._device = resolve_device(self.config.device)
        self._precision = resolve_precision(recipe.training.precision, self._device)
        self._model = build_model(recipe.model, vocab_size, recipe.seed, bos_id).to(self._device).eval()
        self._parameters = dict(self._model.named_parameters())
        self._layout = BlockLayout.of(self._parameters)

    @classmethod
    def prepare(cls, recipe: Recipe, tokenizer: Tokenizer, cache_dir: Path) -> "Witness | None":
        """Returns the witness of a resolved recipe after its text is tokenized, or None when it has none.

        Every entry of `witness.data` is a source of its own, so that a long text does not crowd out a short one.

        Raises:
            DataError: when a source gives no text.
        """
        if recipe.witness is None:
            return None
        corpora = [prepare_corpus([path], recipe.data, tokenizer, cache_dir) for path in recipe.witness.data]
        return cls(recipe, tokenizer.padded_vocab_size, [corpus.train for corpus in corpora], tokenizer.bos_id)

    def windows(self, round_number: int) -> np.ndarray:
        """Returns the round's windows, (W, T + 1) int64: as many of every source, none twice."""
        drawn = []
        for number, store in enumerate(self.sources):
            seed = seed_for(self.recipe.seed, "witness", str(round_number), str(number))
            stream = BatchStream(store, self.recipe.model.context, 1, seed)
            drawn += [stream.next() for _ in range(min(self.config.windows, stream.windows_per_epoch))]
        return np.concatenate(drawn)

    def loss(self, round_number: int) -> Loss:
        """Returns the function that measures blocks on the windows of a round: (W,) float64, nats a token."""
        windows = torch.from_numpy(self.windows(round_number))

        def measure(blocks: Blocks) -> Tensor:
            self._layout.scatter(blocks, self._parameters)
            return self._losses(windows)

        return measure

    @torch.no_grad()
    def _losses(self, windows: Tensor) -> Tensor:
        losses = []
        for batch in torch.split(windows, self.recipe.training.batch_size):
            tokens = batch.to(self._device)
            x_BTD, _ = self._model.hidden(tokens[:, :-1], self._precision)
            head = self._model.head.weight
            pairs = zip(x_BTD, tokens[:, 1:], strict=True)
            losses += [linear_cross_entropy(x_TD, head, targets_T) for x_TD, targets_T in pairs]
        return torch.stack(losses).double().cpu()
