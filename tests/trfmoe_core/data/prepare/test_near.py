"""Near-duplicates do not stand on both sides of the split, and repetitive text is not lost."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.prepare.near import RUN_WORDS, runs
from trfmoe_core.data.tokenizers.byte import ByteTokenizer

CONFIG = DataConfig(piece_bytes=1024)
WORDS = [a + b + c for a in "bdfgklmnprst" for b in ("a", "e", "io", "ou") for c in ("n", "rt", "st", "m", "ck")]


def text_of(seed: int, words: int = 400) -> str:
    generator = random.Random(seed)
    sentences = [" ".join(generator.choices(WORDS, k=9)).capitalize() + "." for _ in range(words // 9)]
    return "\n\n".join(" ".join(sentences[at : at + 3]) for at in range(0, len(sentences), 3))


def one_word_changed(text: str) -> str:
    words = text.split(" ")
    words[len(words) // 2] = "CHANGED"
    return " ".join(words)


def with_a_title(text: str) -> str:
    return f"A Title Of Some Length That Was Put In Front Later\n\n{text}"


def prepare(folder: Path, texts: list[str], config: DataConfig = CONFIG) -> Corpus:
    (folder / "in").mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / "in" / f"{number:04}.txt").write_text(text)
    return prepare_corpus([str(folder / "in")], config, ByteTokenizer(), folder / "cache")


def sides(corpus: Corpus) -> tuple[list[str], list[str]]:
    (source,) = corpus.sources
    stores = (source.train, source.held_out)
    train, held = ([bytes(s.piece(n)[1:].astype(np.uint8)).decode() for n in range(s.num_pieces)] for s in stores)
    return train, held


def leaks(corpus: Corpus) -> int:
    """Held-out pieces at least half of whose runs of words stand in the training text; counted with sets of words."""

    def windows(text: str) -> list[tuple[str, ...]]:
        words = text.lower().split()
        return [tuple(words[at : at + RUN_WORDS]) for at in range(len(words) - RUN_WORDS + 1)]

    train, held = sides(corpus)
    known = {window for text in train for window in windows(text)}
    shares = [np.mean([window in known for window in windows(text)]) for text in held if windows(text)]
    return sum(share >= 0.5 for share in shares)


@pytest.mark.parametrize("variant", [one_word_changed, with_a_title])
def test_variants_do_not_leak_and_cost_little(variant: Callable[[str], str], tmp_path: Path) -> None:
    texts = [text_of(seed) for seed in range(60)]
    texts += [variant(text) for text in texts[:20]]
    before = prepare(tmp_path, texts, CONFIG.model_copy(update={"separate_near_duplicates": False}))
    after = prepare(tmp_path, texts)
    assert leaks(before) >= 5
    assert leaks(after) == 0 == after.overlapping
    assert after.near_duplicates >= 5
    assert f"left out: {after.near_duplicates} pieces nearly the same as one on the other side" in after.notes
    assert after.train_tokens > 0.85 * before.train_tokens
    assert after.held_out_tokens > 0.6 * before.held_out_tokens


def test_nothing_is_left_out_of_text_that_differs(tmp_path: Path) -> None:
    letters = [
        f"Invoice {n}: {WORDS[n]} {WORDS[-n]} owes {n * 37} for {n + 3} hours, due on day {n}." for n in range(99)
    ]
    corpus = prepare(tmp_path, [*(text_of(seed) for seed in range(20)), *letters])
    assert (corpus.near_duplicates, corpus.overlapping) == (0, 0)


FORM = text_of(5, words=90)


def test_repetitive_text_stays_in_training(tmp_path: Path) -> None:
    """Many forms that differ in one word: held-out forms are left out, and other text is evaluated on."""
    forms = [f"{FORM} {WORDS[number]} {number}." for number in range(150)]
    corpus = prepare(tmp_path, [*forms, *(text_of(seed) for seed in range(30))])
    train, held = sides(corpus)
    assert leaks(corpus) == 0 == corpus.overlapping
    assert sum(text.startswith(FORM[:40]) for text in train) > 120
    assert held and not any(text.startswith(FORM[:40]) for text in held)


def test_text_that_only_repeats_itself_is_kept_and_said_to(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, [f"{FORM} {WORDS[number]} {number}." for number in range(100)])
    train, held = sides(corpus)
    assert len(train) + len(held) == 100
    assert corpus.overlapping == len(held) > 0
    assert any("the text repeats itself" in note for note in corpus.notes)


def test_pairs_alone_leave_something_to_evaluate_on(tmp_path: Path) -> None:
    texts = [text_of(seed, words=90) for seed in range(40)]
    corpus = prepare(tmp_path, [variant for text in texts for variant in (text, one_word_changed(text))])
    assert leaks(corpus) == 0 == corpus.overlapping
    assert corpus.held_out_tokens > 0
    assert corpus.near_duplicates <= 16


def test_runs_ignore_case_and_blanks_and_end_with_their_text() -> None:
    one, two = "one two three four five six seven", "ONE  two\nthree four five six seven"
    hashes, owners = runs([one, "too short", two, f"{one} eight"])
    assert owners.tolist() == [0, 0, 2, 2, 3, 3, 3]
    assert hashes[:2].tolist() == hashes[2:4].tolist() == hashes[4:6].tolist()
    assert len(set(hashes.tolist())) == 3
    assert runs(["five words are too few"])[0].size == 0


def test_runs_of_scripts_without_blanks() -> None:
    hashes, owners = runs(["今天天气很好我们去公园", "x 今天天气很好我", "Größe ß is a word like any other"])
    assert np.bincount(owners).tolist() == [6, 3, 3]
    assert np.isin(hashes[owners == 0], hashes[owners == 1]).tolist() == [True, True, False, False, False, False]
