import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data import corpus as corpus_module
from trfmoe_core.data.baseline import ByteBigram
from trfmoe_core.data.corpus import Corpus, describe_files, prepare_corpus
from trfmoe_core.data.store import TokenStore
from trfmoe_core.data.tokenizer import ByteTokenizer
from trfmoe_core.errors import DataError

ROOT = Path(__file__).parents[3]
CONFIG = DataConfig(piece_bytes=256, evaluation_tokens=512)


def prepare(folder: Path, cache: Path, config: DataConfig = CONFIG) -> Corpus:
    return prepare_corpus([str(folder)], config, ByteTokenizer(), cache)


def pieces(store: TokenStore) -> list[str]:
    """The texts of a store, each checked for its bos and its size."""
    texts = []
    for index in range(store.num_pieces):
        start, end = store.piece_offsets[index : index + 2]
        assert store.tokens[start] == 256
        data = bytes(store.tokens[start + 1 : end].astype(np.uint8))
        assert len(data) == store.piece_bytes[index]
        texts.append(data.decode())
    return texts


def write_text(folder: Path, name: str = "a.txt", paragraphs: range = range(200)) -> Path:
    folder.mkdir(exist_ok=True)
    text = "\n\n".join(f"Paragraph {n} tells of {n * n} things and of what {n + 7} of them did." for n in paragraphs)
    (folder / name).write_text(text)
    return folder


def test_a_mixed_folder_gives_its_good_text_and_a_report_a_file(mixed_folder: Path, tmp_path: Path) -> None:
    corpus = prepare(mixed_folder, tmp_path / "cache")
    assert [Path(report.path).name for report in corpus.files] == sorted(
        (path.name for path in mixed_folder.rglob("*") if path.is_file()),
        key=lambda name: "deep/" * (name == "latin.md") + name,
    )
    text = "\n".join(pieces(corpus.train) + pieces(corpus.held_out))
    for number in (0, 15, 100, 115, 200, 207, 300, 307, 400, 407):
        assert f"fox number {number} " in " ".join(text.split())
    assert "secret" not in text
    lines = describe_files(corpus.files).splitlines()
    assert lines[0].startswith("16 files: 5 broken, 1 duplicate, 1 empty, 1 needs-password, 1 no-text, 1 not-a-pdf")
    assert len(lines) == 17


def test_the_split_is_by_text_and_complete(tmp_path: Path) -> None:
    one = prepare(write_text(tmp_path / "one"), tmp_path / "cache")
    train, held_out = set(pieces(one.train)), set(pieces(one.held_out))
    assert len(train) + len(held_out) == one.train.num_pieces + one.held_out.num_pieces
    assert 0 < len(held_out) < len(train)
    write_text(tmp_path / "two", "z.txt")
    two = prepare(write_text(tmp_path / "two", "b.txt", range(1000, 1100)), tmp_path / "cache")
    assert train <= set(pieces(two.train))
    assert held_out <= set(pieces(two.held_out))
    assert two.train.num_bytes == sum(len(text.encode()) for text in pieces(two.train))
    assert two.train.tokens.dtype == np.uint16


def test_repeated_pieces_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in")
    once = prepare(folder, tmp_path / "cache")
    (folder / "b.md").write_text((folder / "a.txt").read_text().upper())
    twice = prepare(folder, tmp_path / "cache")
    assert pieces(twice.train) == pieces(once.train)
    assert twice.notes == [
        f"{once.train.num_pieces + once.held_out.num_pieces} pieces that stood there before were left out"
    ]


def test_few_pieces_give_both_sides(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in", paragraphs=range(30))
    corpus = prepare(folder, tmp_path / "cache", CONFIG.model_copy(update={"held_out": 1e-9}))
    assert corpus.held_out.num_bytes >= 0.08 * corpus.train.num_bytes
    assert "last tenth" in corpus.notes[0]
    (folder / "a.txt").write_text("only one sentence of some words")
    corpus = prepare(folder, tmp_path / "cache")
    assert pieces(corpus.train) + pieces(corpus.held_out) == ["only one sentence of", "some words"]
    assert "cut in two" in corpus.notes[0]


def test_no_text_is_an_error_that_lists_the_files(tmp_path: Path, mixed_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="0 files: none"):
        prepare(tmp_path / "empty", tmp_path / "cache")
    for path in mixed_folder.rglob("*"):
        if path.name.startswith(("good", "copy", "some", "latin")):
            path.unlink()
    with pytest.raises(DataError, match=r"(?s)no text.*locked\.pdf: needs-password.*picture\.pdf: no-text"):
        prepare(mixed_folder, tmp_path / "cache")
    (tmp_path / "empty" / "x.txt").write_text("x")
    with pytest.raises(DataError, match="no text to train on and to hold out"):
        prepare(tmp_path / "empty", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "corpora").iterdir() if path.is_dir()]


def test_prepared_once_for_a_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(write_text(tmp_path / "in"), tmp_path / "cache")
    stamp = (tmp_path / "cache" / "corpora" / first.key / "train.tokens").stat().st_mtime_ns

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "_read_all", refuse)
        again = prepare((tmp_path / "in").rename(tmp_path / "moved"), tmp_path / "cache")
        assert again.key == first.key
        assert again.files[0].path == str(tmp_path / "moved" / "a.txt")
        assert (again.notes, again.bigram_bits_per_byte) == (first.notes, first.bigram_bits_per_byte)
        with pytest.raises(AssertionError, match="read again"):
            prepare(tmp_path / "moved", tmp_path / "cache", CONFIG.model_copy(update={"piece_bytes": 300}))
        (tmp_path / "moved" / "a.txt").write_text("changed")
        with pytest.raises(AssertionError, match="read again"):
            prepare(tmp_path / "moved", tmp_path / "cache")
    assert (tmp_path / "cache" / "corpora" / first.key / "train.tokens").stat().st_mtime_ns == stamp


def test_same_files_give_the_same_bytes(tmp_path: Path, mixed_folder: Path) -> None:
    files = []
    for name in ("c1", "c2"):
        key = prepare(mixed_folder, tmp_path / name).key
        files.append({path.name: path.read_bytes() for path in (tmp_path / name / "corpora" / key).iterdir()})
    assert files[0] == files[1]


def test_a_spoilt_cache_is_built_anew(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in")
    first = prepare(folder, tmp_path / "cache")
    expected = pieces(first.train)
    home = tmp_path / "cache" / "corpora" / first.key
    for name, data in (
        ("train.tokens", b"abc"),
        ("corpus.json", b"{}"),
        ("held_out.bytes.npy", b""),
        ("train.json", b"["),
    ):
        (home / name).write_bytes(data)
        assert pieces(prepare(folder, tmp_path / "cache").train) == expected
    (home / "train.offsets.npy").unlink()
    assert pieces(prepare(folder, tmp_path / "cache").train) == expected


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_text(tmp_path / "in")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "write_text", full)
        with pytest.raises(DataError, match="No space left on device"):
            prepare(folder, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache" / "corpora").iterdir()] == [".lock"]
    assert prepare(folder, tmp_path / "cache").train.num_pieces > 0
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another cache_dir"):
        prepare(folder, tmp_path / "file")


def test_three_processes_at_once_share_one_corpus(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    folder = write_text(tmp_path / "in")
    write_pdf(folder / "x.pdf", [["some words on a page"]])
    program = (
        "import sys; from pathlib import Path; from trfmoe_core.config import DataConfig\n"
        "from trfmoe_core.data.corpus import prepare_corpus; from trfmoe_core.data.tokenizer import ByteTokenizer\n"
        "c = prepare_corpus([sys.argv[1]], DataConfig(piece_bytes=256), ByteTokenizer(), Path(sys.argv[2]))\n"
        "print(c.key, c.train.num_tokens, c.held_out.num_tokens)\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "cache")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said) == 1
    key = said.pop().split()[0]
    assert sorted(path.name for path in (tmp_path / "cache" / "corpora").iterdir()) == [key, f"{key}.lock"]


def test_bigram_is_that_of_the_pieces(tmp_path: Path) -> None:
    corpus = prepare(write_text(tmp_path / "in"), tmp_path / "cache")
    bigram = ByteBigram()
    bigram.fit(text.encode() for text in pieces(corpus.train))
    used = corpus.held_out.pieces_within(CONFIG.evaluation_tokens)
    expected = bigram.bits_per_byte(text.encode() for text in pieces(corpus.held_out)[:used])
    assert corpus.bigram_bits_per_byte == pytest.approx(expected)
    assert 1 < expected < 5
