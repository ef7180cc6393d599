"""The training stream of a corpus, as a recipe asks for it."""

from collections.abc import Mapping
from typing import Any

from trfmoe_core.config.recipe import Recipe
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.rows import make_layout
from trfmoe_core.data.batches.stream import BatchStream, Feed


def training_stream(
    corpus: Corpus, recipe: Recipe, seed: int, state: Mapping[str, Any] | None = None, batch_size: int | None = None
) -> BatchStream:
    """Returns the stream over all of a corpus' sources, by their weights.

    Args:
        seed: of the order; the same for the same node and run.
        state: what `place_of` said earlier; a place in other data is left and the stream begins anew.
        batch_size: rows a batch; None: the recipe's.

    Raises:
        DataError: a source without tokens, or a state of this corpus that its stream cannot have.
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
    """Returns where a stream stands in a corpus, as plain JSON: what a node or a run keeps to go on exactly."""
    return {"corpus": corpus.key, "stream": stream.state()}
