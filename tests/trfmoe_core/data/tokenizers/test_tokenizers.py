import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.data.tokenizers.base import padded
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import DataError

TEXT = "Hello world, it's 3.14!\n\tGrüße — 你好 🙂 \x00 <|endoftext|> <bos>"


def make_folder(folder: Path, *, lossless: bool = True, bos: str | None = "<|endoftext|>") -> Path:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if lossless:
        backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>" if bos else "<x>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 4, trainer)
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": bos}} if bos else {}))
    return folder


@given(st.text())
def test_bytes_come_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids.tolist()) == text
    assert ids.tolist() == list(text.encode())


def test_byte_tokenizer_ignores_specials_and_padding_rows_and_mends_bad_bytes() -> None:
    tokenizer = load_tokenizer("byte")
    assert (tokenizer.vocab_size, tokenizer.padded_vocab_size, tokenizer.bos_id) == (259, 320, 256)
    assert tokenizer.decode([256, 72, 105, 257, 258, 319, -1]) == "Hi"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([0xC3]) == "\ufffd"
    assert tokenizer.encode("\ud800").tolist() == [ord("?")]


def test_saved_byte_tokenizer_loads_here_and_in_transformers(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    tokenizer.save(tmp_path / "byte")
    again = load_tokenizer(str(tmp_path / "byte"))
    assert isinstance(again, ByteTokenizer)
    assert again.fingerprint == tokenizer.fingerprint
    from transformers import AutoTokenizer

    stock = AutoTokenizer.from_pretrained(tmp_path / "byte", local_files_only=True)
    plain = TEXT.replace("<bos>", "")
    ids = stock(plain, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.encode(plain).tolist()
    assert stock.decode(ids) == plain
    assert (stock.bos_token_id, stock.eos_token_id, stock.pad_token_id) == (256, 257, 258)


def test_local_folder_gives_a_lossless_tokenizer_that_survives_saving(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(make_folder(tmp_path / "bpe")))
    assert tokenizer.decode(tokenizer.encode(TEXT).tolist()) == TEXT
    assert [ids.tolist() for ids in tokenizer.encode_batch(["the", ""])] == [tokenizer.encode("the").tolist(), []]
    assert tokenizer.bos_id == 0
    assert 0 not in tokenizer.encode("<|endoftext|>")
    assert tokenizer.vocab_size <= tokenizer.padded_vocab_size == padded(tokenizer.vocab_size)
    assert tokenizer.decode([0, tokenizer.padded_vocab_size - 1]) == ""
    tokenizer.save(tmp_path / "again")
    again = load_tokenizer(str(tmp_path / "again"))
    assert again.fingerprint == tokenizer.fingerprint != ByteTokenizer.fingerprint
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


def test_old_folder_of_vocabulary_and_merges_gives_the_same_tokens(tmp_path: Path) -> None:
    new = make_folder(tmp_path / "new")
    model = json.loads((new / "tokenizer.json").read_text())["model"]
    old = tmp_path / "old"
    old.mkdir()
    (old / "vocab.json").write_text(json.dumps(model["vocab"]))
    (old / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]) + "\n")
    (old / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert load_tokenizer(str(old)).encode(TEXT).tolist() == load_tokenizer(str(new)).encode(TEXT).tolist()


def test_a_tokenizer_that_draws_lots_is_refused(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "dice") / "tokenizer.json"
    content = json.loads(path.read_text())
    for dropout in (0.1, 1e-6):
        content["model"]["dropout"] = dropout
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"dice: its BPE dropout is {dropout:g}, so the same text"):
            load_tokenizer(str(tmp_path / "dice"))


def with_normalizer(folder: Path, normalizer: object) -> Path:
    make_folder(folder)
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.normalizer = normalizer
    backend.save(str(folder / "tokenizer.json"))
    return folder


def test_a_tokenizer_that_only_normalises_is_used_and_says_so(tmp_path: Path) -> None:
    """Such as those that were converted from SentencePiece."""
    blanks = [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer = load_tokenizer(str(with_normalizer(tmp_path / "tidy", normalizers.Sequence(blanks))))
    assert tokenizer.decode(tokenizer.encode("  two\n\nﬁne ").tolist()) == "two fine"
    assert "it normalises text (\"Hello world, it's 3.14!\\n\\tGr" in tokenizer.remark
    assert "can be compared only between models with this tokenizer" in tokenizer.remark
    assert load_tokenizer("byte").remark == load_tokenizer(str(make_folder(tmp_path / "bpe"))).remark == ""
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(str(tmp_path / "again")).remark == tokenizer.remark


@pytest.mark.parametrize(
    "normalizer", [normalizers.Lowercase(), normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])]
)
def test_a_tokenizer_that_loses_more_is_refused(tmp_path: Path, normalizer: object) -> None:
    with pytest.raises(DataError, match="which says something else; use a byte-level tokenizer"):
        load_tokenizer(str(with_normalizer(tmp_path / "loses", normalizer)))


def test_folders_that_are_no_tokenizer_of_a_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "tokenizer.json").write_text("{}")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "tokenizer_config.json").write_text("[]")
    make_folder(tmp_path / "lossy", lossless=False)
    make_folder(tmp_path / "nobos", bos=None)
    make_folder(tmp_path / "wrongbos", bos="<s>")
    small = Backend(models.WordLevel({"hello": 0, "<s>": 1}, unk_token="<s>"))
    (tmp_path / "small").mkdir()
    small.save(str(tmp_path / "small" / "tokenizer.json"))
    (tmp_path / "small" / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    # transformers 5 makes a tokenizer of one token out of this, without a word.
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    cases = ["trap", "missing", "none", "bad", "list", "lossy", "nobos", "wrongbos", "small"]
    for name in cases:
        with pytest.raises(DataError, match=name):
            load_tokenizer(str(tmp_path / name))
