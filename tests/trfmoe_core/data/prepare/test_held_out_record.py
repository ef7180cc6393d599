"""What is held out of little text stays held out when files are added."""

import json
from pathlib import Path

import numpy as np
import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.prepare.held_out_record import FILE
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import DataError

CONFIG = DataConfig()


def add(folder: Path, name: str, seed: int, words: int = 60) -> None:
    folder.mkdir(exist_ok=True)
    text = " ".join(f"{name}{number}x{number * (seed + 3) % 7919}" for number in range(words))
    (folder / f"{name}.txt").write_text(text)


def prepare(folder: Path, cache: Path) -> Corpus:
    return prepare_corpus([str(folder)], CONFIG, ByteTokenizer(), cache)


def words(corpus: Corpus, side: str) -> set[str]:
    stores = [getattr(source, side) for source in corpus.sources]
    return {
        word
        for store in stores
        for piece in range(store.num_pieces)
        for word in bytes(store.piece(piece)[1:].astype(np.uint8)).decode().split()
    }


@pytest.mark.parametrize("files", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_no_held_out_word_is_trained_on_after_growing(files: int, seed: int, tmp_path: Path) -> None:
    folder, cache = tmp_path / "in", tmp_path / "cache"
    for number in range(files):
        add(folder, f"f{number}s{seed}", seed)
    held: set[str] = set()
    for size in (0, 1, 4, 30):
        for number in range(size):
            add(folder, f"new{size}n{number}s{seed}", seed)
        corpus = prepare(folder, cache)
        assert corpus.train_tokens and corpus.held_out_tokens
        assert not held & words(corpus, "train")
        held |= words(corpus, "held_out")
        assert prepare(folder, cache).key == corpus.key
    assert corpus.held_out_tokens < 0.5 * corpus.train_tokens


def test_a_corpus_prepared_before_is_split_anew_if_one_of_its_pieces_was_held_out_since(tmp_path: Path) -> None:
    """The larger corpus comes first, then the small one that holds out a piece of it."""
    folder, cache = tmp_path / "in", tmp_path / "cache"
    for number in range(12):
        add(folder, f"file{number}", 1)
    first = prepare(folder, cache)
    # The small corpus: one file whose text the first trains on.
    name = next(name for name in (f"file{number}" for number in range(12)) if f"{name}0x0" in words(first, "train"))
    small = prepare_corpus([str(folder / f"{name}.txt")], CONFIG, ByteTokenizer(), cache)
    assert "cut in two" in small.notes[0]
    again = prepare(folder, cache)
    assert not words(small, "held_out") & words(again, "train")
    assert again.key != first.key
    assert any("they stay held out" in note for note in again.notes)


def test_the_outcome_is_the_same_when_it_is_built_again(tmp_path: Path) -> None:
    folder, cache = tmp_path / "in", tmp_path / "cache"
    add(folder, "one", 1)
    add(folder, "two", 2)
    first = prepare(folder, cache)
    for path in (cache / "corpora").glob("*/corpus.json"):
        path.unlink()
    second = prepare(folder, cache)
    assert (second.key, second.notes) == (first.key, first.notes)
    assert words(second, "train") == words(first, "train")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    add(tmp_path / "in", "one", 1)
    prepare(tmp_path / "in", tmp_path / "cache")
    record = tmp_path / "cache" / "corpora" / FILE
    assert json.loads(record.read_text())[0]["files"] == [str(tmp_path / "in" / "one.txt")]
    record.write_text("[{}]")
    with pytest.raises(DataError, match=r"held-out\.json: damaged"):
        prepare(tmp_path / "in", tmp_path / "cache")
