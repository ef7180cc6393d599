"""A prepared corpus: a node's text as tokens, with a report for every file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trfmoe_core.data.batches.held_out import EvaluationSet, evaluation_windows
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.data.documents.reports import FileReport


@dataclass(frozen=True, eq=False)
class CorpusSource:
    """One source of a corpus.

    Attributes:
        name: printable.
        weight: its share of the training tokens, relative to the other sources.
        stops: True: its rows are given out once (`mixture.Mixture`).
        train: pieces to train on, in the order of the files.
        held_out: pieces to evaluate on.
        files: path of every unit; `Corpus.documents` refers to units by index.
    """

    name: str
    weight: float
    stops: bool
    train: TokenStore
    held_out: TokenStore
    files: list[str]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A node's text as tokens.

    Attributes:
        sources: the sources with text to train on, at least one.
        files: one report for every file that was found.
        notes: remarks for the owner of the data.
        key: hex SHA-256 of everything that determines it: the sources' contents, the options, the tokenizer, and the
            pieces that are held out because they were before.
        duplicates: pieces that were left out because the same text came before.
        near_duplicates: pieces that were left out because they are nearly the same as one on the other side.
        overlapping: held-out pieces that are nearly the same as training text, because all of the text repeats itself.
        leaked: held-out pieces that are in the training text too, counted in the stores; must be 0.
        bigram_bits_per_byte: cost of an evaluation's pieces under a byte bigram of the training text (`ByteBigram`).
        extract: path of the reports on disk, one JSON object per line.
        documents: (documents,) structured array: `unit` of its source, and `place` in its file.
        fresh: True if it was prepared just now; False if it was in the cache, because nothing has changed.
    """

    sources: list[CorpusSource]
    files: list[FileReport]
    notes: list[str]
    key: str
    duplicates: int
    near_duplicates: int
    overlapping: int
    leaked: int
    bigram_bits_per_byte: float
    extract: Path
    documents: Any
    fresh: bool = False

    @property
    def train_tokens(self) -> int:
        """Tokens to train on, including every piece's bos."""
        return sum(source.train.num_tokens for source in self.sources)

    @property
    def held_out_tokens(self) -> int:
        """Held-out tokens, including every piece's bos."""
        return sum(source.held_out.num_tokens for source in self.sources)

    def evaluation(self, context: int, max_tokens: int) -> EvaluationSet:
        """Returns the windows of an evaluation, with every source's share of up to `max_tokens` tokens."""
        return evaluation_windows(*self.held_out_stores(), context, max_tokens)

    def held_out_stores(self) -> tuple[list[TokenStore], list[float]]:
        """Returns the held-out pieces and the weight of every source."""
        return [source.held_out for source in self.sources], [source.weight for source in self.sources]
