"""The training stream of a corpus with the options of a recipe."""

from collections.abc import Mapping
from typing import Any

from trfmoe_core.config.recipe import Recipe
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.rows import make_layout
from trfmoe_core.data.batches.stream import BatchStream, Feed


def training_stream(
    corpus: Corpus, recipe: Recipe, seed: int, state: Mapping[str, Any] | None = None, batch_size: int | None = None
) -> BatchStream:
    """Returns the stream over all sources of a corpus, mixed by their weights.

    Args:
        corpus: the sources.
        recipe: gives packing, context, batch size and number of loader threads.
        seed: of the order of the rows; the same for the same node and run.
        state: an earlier result of `place_of`. If it belongs to another corpus, the stream starts at the beginning.
        batch_size: rows per batch; None takes the recipe's.

    Raises:
        DataError: a source has no tokens, or the state belongs to this corpus and does not fit the stream.
    """
    packing = recipe.data.packing
    feeds = [
        Feed(make_layout(packing, source.train, recipe.model.context, seed + number), source.weight, source.stops)
        for number, source in enumerate(corpus.sources)
    ]
    here = state["stream"] if state is not None and state["corpus"] == corpus.key else None
    ignored = int(corpus.sources[0].train.tokens[0]) if packing == "best_fit" else None
    return BatchStream(
        feeds, batch_size or recipe.training.batch_size, here, recipe.data.loader_threads, ignored_target=ignored
    )


def place_of(corpus: Corpus, stream: BatchStream) -> dict[str, Any]:
    """Returns the position of a stream in a corpus as plain JSON, from which `training_stream` can continue exactly."""
    return {"corpus": corpus.key, "stream": stream.state()}
