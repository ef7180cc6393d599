"""The witness: the coordinator's own text. Each round measures candidate models on new windows of it.

W = windows, T = context.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from strategies.witness.loss_increase import Loss
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.data.batches.stream import stream_over
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import ConfigError, DataError
from trfmoe_core.model.frozen import set_frozen
from trfmoe_core.model.loss import linear_cross_entropy
from trfmoe_core.model.transformer import build_model
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.device import resolve_device, resolve_precision

LEAST_WINDOWS = 2


class Witness:
    """Measures global blocks on text that the coordinator trusts. Holds one model of its own.

    Args:
        recipe: The run; its `witness` section says which windows.
        vocab_size: The tokenizer's, padded.
        sources: One store for each of the section's sources.
        salt: Secret that decides the windows, together with the recipe's seed; see `RunFolder.witness_salt`.
        bos_id: The tokenizer's, for models that mask documents.
        frozen: Flat values of the weights that are never trained, by name.
    """

    def __init__(
        self,
        recipe: Recipe,
        vocab_size: int,
        sources: Sequence[TokenStore],
        salt: str,
        bos_id: int | None = None,
        frozen: Mapping[str, Tensor] | None = None,
    ) -> None:
        if recipe.witness is None:
            raise ConfigError("witness: null, so there is no text to judge by; give it data or do without")
        self.recipe, self.config, self.sources, self._salt = recipe, recipe.witness, list(sources), salt
        self._device = resolve_device(self.config.device)
        self._precision = resolve_precision(recipe.training.precision, self._device, recipe.model.width)
        model = build_model(recipe.model, vocab_size, recipe.seed, bos_id, recipe.training.freeze)
        if frozen:
            set_frozen(frozen, model.frozen_weights())
        self._model = model.to(self._device).eval()
        self._parameters = dict(self._model.named_parameters())
        self._layout = BlockLayout.of(self._parameters)

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        tokenizer: Tokenizer,
        cache_dir: Path,
        salt: str,
        frozen: Mapping[str, Tensor] | None = None,
    ) -> "Witness | None":
        """Returns the witness of a resolved recipe after its text is tokenized; None if the recipe has no witness.

        Every entry of `witness.data` is a source of its own, so that a long text does not crowd out a short one.

        Args:
            recipe: The recipe, with absolute paths.
            tokenizer: The run's tokenizer.
            cache_dir: Where prepared text is kept.
            salt: Secret of the run that decides which windows of the text are used.
            frozen: See the class.

        Raises:
            DataError: A source gives no text, or too little.
        """
        if recipe.witness is None:
            return None
        corpora = [prepare_corpus([path], recipe.data, tokenizer, cache_dir) for path in recipe.witness.data]
        sources = [corpus.sources[0].train for corpus in corpora]
        for path, store in zip(recipe.witness.data, sources, strict=True):
            count = stream_over(store, recipe.model.context, 1, 0).rows_per_epoch
            if count < LEAST_WINDOWS:
                raise DataError(
                    f"witness.data: {path} gives {count} window of {recipe.model.context} tokens, and of fewer than "
                    f"{LEAST_WINDOWS} nobody knows how far they scatter; give more text"
                )
        return cls(recipe, tokenizer.padded_vocab_size, sources, salt, tokenizer.bos_id, frozen)

    def windows(self, round_number: int) -> list[np.ndarray]:
        """Returns the round's windows of every source, (W, T + 1) int64: as many of each, none twice."""
        drawn = []
        for number, store in enumerate(self.sources):
            seed = seed_for(self.recipe.seed, "witness", self._salt, str(round_number), str(number))
            stream = stream_over(store, self.recipe.model.context, 1, seed)
            count = min(self.config.windows, stream.rows_per_epoch)
            drawn.append(np.concatenate([stream.next() for _ in range(count)]))
        return drawn

    def loss(self, round_number: int) -> Loss:
        """Returns the function that measures blocks on the windows of a round: (W,) float64 a source, nats a token."""
        windows = [torch.from_numpy(drawn) for drawn in self.windows(round_number)]

        def measure(blocks: Blocks) -> list[Tensor]:
            self._layout.scatter(blocks, self._parameters)
            return [self._losses(drawn) for drawn in windows]

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
