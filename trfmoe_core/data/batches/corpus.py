"""A node's text as tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trfmoe_core.data.batches.held_out import EvaluationSet, evaluation_windows
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.data.documents.reports import FileReport


@dataclass(frozen=True, eq=False)
class CorpusSource:
    """One entry of a node's `data`, as tokens.

    Attributes:
        name: printable.
        weight: its share of the training tokens, relative to the others.
        stops: whether it is given out only once (`mixture.Mixture`).
        train: pieces to train on, in the files' order.
        held_out: pieces to evaluate on.
        files: the file of each of its units, by the number that the table of documents says.
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
        sources: those that have text to train on, at least one.
        files: one report for every file that was found.
        notes: what the owner should know, e.g. that the split had to be mended.
        key: SHA-256 of the documents' sources, the options and the tokenizer; the name under which it is cached.
        duplicates: pieces left out because the same text came before.
        leaked: held-out pieces that are in the training text too, as counted in the stores: 0.
        bigram_bits_per_byte: what an add-one byte bigram of the training text pays on the pieces of an evaluation.
        extract: the file with one JSON object for every file that was found (`FileReport`).
        documents: (documents,) which unit of its source each comes from, and where in its file it stands.
    """

    sources: list[CorpusSource]
    files: list[FileReport]
    notes: list[str]
    key: str
    duplicates: int
    leaked: int
    bigram_bits_per_byte: float
    extract: Path
    documents: Any

    @property
    def train_tokens(self) -> int:
        """Tokens to train on, each piece's bos included."""
        return sum(source.train.num_tokens for source in self.sources)

    @property
    def held_out_tokens(self) -> int:
        """Tokens held out."""
        return sum(source.held_out.num_tokens for source in self.sources)

    def evaluation(self, context: int, max_tokens: int) -> EvaluationSet:
        """Returns the fixed windows of an evaluation, of every source its share."""
        return evaluation_windows(*self._held_out(), context, max_tokens)

    def _held_out(self) -> tuple[list[TokenStore], list[float]]:
        return [source.held_out for source in self.sources], [source.weight for source in self.sources]
