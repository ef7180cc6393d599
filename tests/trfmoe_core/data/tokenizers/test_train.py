import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.places import ROOT
from tests.trfmoe_core.data.conftest import prose
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.data.tokenizers.train import train_bpe
from trfmoe_core.errors import DataError

TEXTS = [prose(start, 40) for start in range(0, 400, 40)]
TOKENIZER = train_bpe(TEXTS, 512, "own")


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).tolist()) == text


def test_it_shortens_its_text_and_has_the_size_that_was_asked_for() -> None:
    assert TOKENIZER.vocab_size == TOKENIZER.padded_vocab_size == 512
    assert 2 * TOKENIZER.encode(TEXTS[0]).size < len(TEXTS[0])
    assert TOKENIZER.decode([TOKENIZER.bos_id]) == ""
    assert TOKENIZER.bos_id not in TOKENIZER.encode("<bos>")
    assert train_bpe(["ab ab"], 512, "small").vocab_size < 512


def test_the_same_texts_give_the_same_files_on_any_number_of_threads(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.trfmoe_core.data.tokenizers.test_train import TEXTS, train_bpe\n"
        "train_bpe(TEXTS, 512, 'own').save(Path(sys.argv[1]))"
    )
    root = str(ROOT)
    for name, threads in (("one", "1"), ("four", "4")):
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true", "PYTHONPATH": root}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], env=env, check=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "four" / file).read_bytes()
    assert load_tokenizer(str(tmp_path / "four")).fingerprint == TOKENIZER.fingerprint
    assert train_bpe(TEXTS[1:], 512, "own").fingerprint != TOKENIZER.fingerprint


def test_another_process_gets_it_whole() -> None:
    again = pickle.loads(pickle.dumps(TOKENIZER))
    assert again.fingerprint == TOKENIZER.fingerprint
    assert again.encode("<bos> the fox").tolist() == TOKENIZER.encode("<bos> the fox").tolist()


def test_sizes_and_texts_without_room_for_a_pair_are_refused() -> None:
    with pytest.raises(DataError, match="vocabulary of 259 tokens: bytes and specials need 260"):
        train_bpe(TEXTS, 259, "x")
    with pytest.raises(DataError, match="no pair of letters"):
        train_bpe([""], 300, "x")
