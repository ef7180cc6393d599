import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.places import ROOT
from trfmoe_core.config import DataConfig
from trfmoe_core.config.sources import SourceSettings
from trfmoe_core.data.batches.bigram import ByteBigram
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.held_out import evaluation_pieces
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.prepare import build as build_module
from trfmoe_core.data.prepare.build import describe_files
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.sources.files import FilesSource
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import DataError

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


def train(corpus: Corpus) -> TokenStore:
    """The training text of the one source."""
    (source,) = corpus.sources
    return source.train


def held_out(corpus: Corpus) -> TokenStore:
    """The held-out text of the one source."""
    (source,) = corpus.sources
    return source.held_out


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
    text = "\n".join(pieces(train(corpus)) + pieces(held_out(corpus)))
    for number in (0, 15, 100, 115, 200, 207, 300, 307, 400, 407):
        assert f"fox number {number} " in " ".join(text.split())
    assert "secret" not in text
    lines = describe_files(corpus.files).splitlines()
    assert lines[0].startswith("16 files: 5 broken, 1 duplicate, 1 empty, 1 needs-password, 1 no-text, 1 not-a-pdf")
    assert len(lines) == 17


def test_what_became_of_every_file_is_written_down(mixed_folder: Path, tmp_path: Path) -> None:
    corpus = prepare(mixed_folder, tmp_path / "cache")
    lines = [json.loads(line) for line in corpus.extract.read_text().splitlines()]
    assert [FileReport(**line) for line in lines] == corpus.files
    assert len({line["path"] for line in lines}) == sum(path.is_file() for path in mixed_folder.rglob("*"))
    moved = prepare(mixed_folder.rename(tmp_path / "elsewhere"), tmp_path / "cache")
    assert moved.extract == corpus.extract
    assert all(json.loads(line)["path"].startswith(str(tmp_path / "elsewhere")) for line in moved.extract.open())


def test_the_split_is_by_text_and_complete(tmp_path: Path) -> None:
    one = prepare(write_text(tmp_path / "one"), tmp_path / "cache")
    seen, hidden = set(pieces(train(one))), set(pieces(held_out(one)))
    assert len(seen) + len(hidden) == train(one).num_pieces + held_out(one).num_pieces
    assert 0 < len(hidden) < len(seen)
    write_text(tmp_path / "two", "z.txt")
    two = prepare(write_text(tmp_path / "two", "b.txt", range(1000, 1100)), tmp_path / "cache")
    assert seen <= set(pieces(train(two)))
    assert hidden <= set(pieces(held_out(two)))
    assert (one.leaked, two.leaked) == (0, 0)
    assert train(two).num_bytes == sum(len(text.encode()) for text in pieces(train(two)))
    assert train(two).tokens.dtype == np.uint16


def test_repeated_pieces_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in")
    once = prepare(folder, tmp_path / "cache")
    (folder / "b.md").write_text((folder / "a.txt").read_text().upper())
    twice = prepare(folder, tmp_path / "cache")
    assert pieces(train(twice)) == pieces(train(once))
    assert twice.notes == [
        f"{train(once).num_pieces + held_out(once).num_pieces} pieces that stood there before were left out"
    ]


def test_few_pieces_give_both_sides(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in", paragraphs=range(30))
    corpus = prepare(folder, tmp_path / "cache", CONFIG.model_copy(update={"held_out": 1e-9}))
    assert held_out(corpus).num_pieces == 1 < train(corpus).num_pieces
    assert corpus.notes[0].startswith("1 piece is held out besides those below the threshold 1e-09")
    (folder / "a.txt").write_text("only one sentence of some words")
    corpus = prepare(folder, tmp_path / "cache")
    assert sorted(pieces(train(corpus)) + pieces(held_out(corpus))) == ["only one sentence of", "some words"]
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
    stamp = (tmp_path / "cache" / "corpora" / first.key / "0.train.tokens").stat().st_mtime_ns

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "_read_all", refuse)
        again = prepare((tmp_path / "in").rename(tmp_path / "moved"), tmp_path / "cache")
        assert again.key == first.key
        assert again.files[0].path == str(tmp_path / "moved" / "a.txt")
        assert (again.notes, again.bigram_bits_per_byte) == (first.notes, first.bigram_bits_per_byte)
        with pytest.raises(AssertionError, match="read again"):
            prepare(tmp_path / "moved", tmp_path / "cache", CONFIG.model_copy(update={"piece_bytes": 300}))
        (tmp_path / "moved" / "a.txt").write_text("changed")
        with pytest.raises(AssertionError, match="read again"):
            prepare(tmp_path / "moved", tmp_path / "cache")
    assert (tmp_path / "cache" / "corpora" / first.key / "0.train.tokens").stat().st_mtime_ns == stamp


def test_same_files_give_the_same_bytes(tmp_path: Path, mixed_folder: Path) -> None:
    files = []
    for name in ("c1", "c2"):
        key = prepare(mixed_folder, tmp_path / name).key
        files.append({path.name: path.read_bytes() for path in (tmp_path / name / "corpora" / key).iterdir()})
    assert files[0] == files[1]


def test_a_spoilt_cache_is_built_anew(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in")
    first = prepare(folder, tmp_path / "cache")
    expected = pieces(train(first))
    home = tmp_path / "cache" / "corpora" / first.key
    for name, data in (
        ("0.train.tokens", b"abc"),
        ("corpus.json", b"{}"),
        ("0.held_out.bytes.npy", b""),
        ("0.train.json", b"["),
    ):
        (home / name).write_bytes(data)
        assert pieces(train(prepare(folder, tmp_path / "cache"))) == expected
    (home / "0.train.offsets.npy").unlink()
    assert pieces(train(prepare(folder, tmp_path / "cache"))) == expected


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_text(tmp_path / "in")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_text", full)
        with pytest.raises(DataError, match="No space left on device"):
            prepare(folder, tmp_path / "cache")
    assert sorted(path.suffix for path in (tmp_path / "cache" / "corpora").iterdir()) == [".lock", ".shards"]
    assert train(prepare(folder, tmp_path / "cache")).num_pieces > 0
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another cache_dir"):
        prepare(folder, tmp_path / "file")


def test_three_processes_at_once_share_one_corpus(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    folder = write_text(tmp_path / "in")
    write_pdf(folder / "x.pdf", [["some words on a page"]])
    program = (
        "import sys; from pathlib import Path; from trfmoe_core.config import DataConfig\n"
        "from trfmoe_core.data.prepare.corpus_cache import prepare_corpus\n"
        "from trfmoe_core.data.tokenizers.byte import ByteTokenizer\n"
        "c = prepare_corpus([sys.argv[1]], DataConfig(piece_bytes=256), ByteTokenizer(), Path(sys.argv[2]))\n"
        "print(c.key, c.train_tokens, c.held_out_tokens)\n"
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
    bigram.fit(text.encode() for text in pieces(train(corpus)))
    used = evaluation_pieces([held_out(corpus)], [1.0], CONFIG.evaluation_tokens)
    texts = pieces(held_out(corpus))
    expected = bigram.bits_per_byte(texts[piece].encode() for _, piece in used)
    assert corpus.bigram_bits_per_byte == pytest.approx(expected)
    assert 1 < expected < 5


def entry(folder: Path, **more: object) -> SourceSettings:
    return FilesSource.model_validate({"source": "files", "path": str(folder), **more})


def test_sources_stay_apart_and_share_one_split(tmp_path: Path) -> None:
    one = write_text(tmp_path / "one", paragraphs=range(300))
    two = write_text(write_text(tmp_path / "two", "b.txt", range(900, 1200)), "c.txt", range(300))
    entries = [entry(one, weight=3.0, on_end="stop"), entry(two)]
    corpus = prepare_corpus(entries, CONFIG, ByteTokenizer(), tmp_path / "cache")
    first, second = corpus.sources
    assert [(source.weight, source.stops) for source in corpus.sources] == [(3.0, True), (1.0, False)]
    assert (first.name, second.name) == (str(one), str(two))
    texts = [set(pieces(store)) for source in corpus.sources for store in (source.train, source.held_out)]
    assert all(texts)
    assert sum(map(len, texts)) == len(set.union(*texts))
    # What stands in both counts for the first, and the side is the text's own.
    alone = prepare(one, tmp_path / "cache")
    assert (texts[0], texts[1]) == (set(pieces(train(alone))), set(pieces(held_out(alone))))
    assert corpus.duplicates > 10
    assert corpus.leaked == 0
    assert corpus.notes == [
        f"{corpus.duplicates} pieces that stood there before were left out",
        "2 sources share the training tokens: 75% (stop at its end), 25% (repeat at its end)",
    ]
    assert corpus.train_tokens == first.train.num_tokens + second.train.num_tokens
    # Weights say how the tokens are used, not what they are.
    other = prepare_corpus([entry(one), entry(two, weight=9.0)], CONFIG, ByteTokenizer(), tmp_path / "cache")
    assert other.key == corpus.key
    assert other.sources[1].weight == 9.0
    assert other.evaluation(32, 512).tokens.tolist() != corpus.evaluation(32, 512).tokens.tolist()


def test_a_source_whose_text_stands_elsewhere_takes_no_part(tmp_path: Path) -> None:
    one = write_text(tmp_path / "one")
    two = write_text(tmp_path / "two", "b.txt", range(100))
    (tmp_path / "two" / "b.txt").write_text((one / "a.txt").read_text()[:4000].upper().rpartition("\n\n")[0])
    corpus = prepare_corpus([entry(one), entry(two)], CONFIG, ByteTokenizer(), tmp_path / "cache")
    assert [source.name for source in corpus.sources] == [str(one)]
    assert "source 2 of 2: no text of its own to train on; it takes no part" in corpus.notes


def test_duplicates_may_stay_and_then_lie_on_one_side(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in")
    once = prepare(folder, tmp_path / "cache")
    (folder / "b.md").write_text((folder / "a.txt").read_text() + "\n")
    corpus = prepare(folder, tmp_path / "cache", CONFIG.model_copy(update={"deduplicate": False}))
    assert train(corpus).num_tokens > 1.9 * train(once).num_tokens
    assert (corpus.duplicates, corpus.leaked, corpus.notes) == (0, 0, [])
    assert set(pieces(train(corpus))) >= set(pieces(train(once)))


def test_every_piece_says_where_it_comes_from(tmp_path: Path, mixed_folder: Path) -> None:
    corpus = prepare(mixed_folder, tmp_path / "cache")
    (source,) = corpus.sources
    for store in (source.train, source.held_out):
        for number, text in enumerate(pieces(store)):
            unit, place = corpus.documents[int(store.documents[number])]
            file = Path(source.files[unit])
            if file.name == "some.jsonl":
                assert place == b"line 1"
            if "fox number 10" in text and "fox number 300 " not in text and file.suffix == ".parquet":
                assert place in (b"row 0", b"row 2")
            if file.suffix in (".txt", ".md"):
                raw = file.read_bytes().decode("latin-1" if file.name == "latin.md" else "utf-8")
                assert text.split()[-1] in raw


def test_settings_of_use_prepare_nothing_anew(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "in")
    first = prepare(folder, tmp_path / "cache")
    used = {"packing": "best_fit", "loader_threads": 3, "processes": 2, "evaluation_tokens": 4096}
    assert prepare(folder, tmp_path / "cache", CONFIG.model_copy(update=used)).key == first.key
    for change in ({"deduplicate": False}, {"held_out": 0.2}, {"piece_bytes": 300}):
        assert prepare(folder, tmp_path / "cache", CONFIG.model_copy(update=change)).key != first.key


@pytest.mark.parametrize("times", [1, 2, 99])
def test_a_file_that_changes_is_read_again_and_left_out_if_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    folder = write_text(tmp_path / "in")
    log = folder / "log.txt"
    log.write_text("the log begins\n\n")
    real, left = build_module._read_all, [times]

    def read(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            with log.open("a") as file:
                file.write(f"entry {left[0]} of the log, which goes on and on\n\n")
        return real(*arguments)

    monkeypatch.setattr(build_module, "_read_all", read)
    corpus = prepare(folder, tmp_path / "cache")
    text = "\n".join(pieces(train(corpus)) + pieces(held_out(corpus)))
    (report,) = [report for report in corpus.files if report.path == str(log)]
    assert (report.status, "the log begins" in text) == (("ok", True) if times == 1 else ("changed", False))
    assert "Paragraph 7 " in text
    monkeypatch.setattr(build_module, "_read_all", real)
    again = prepare(folder, tmp_path / "cache")
    assert "the log begins" in "\n".join(pieces(train(again)) + pieces(held_out(again)))


def test_a_folder_that_never_stands_still_gives_the_files_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_text(tmp_path / "in")
    write_text(folder, "z.txt", range(500, 600))
    for number in range(60):
        (folder / f"log-{number:02}.txt").write_text(f"log {number} begins\n\n")
    real, runs = build_module._read_all, [0]

    def read(*arguments: Any) -> Any:
        runs[0] += 1
        for number in range(10 * runs[0] - 10, 10 * runs[0]):
            (folder / f"log-{number:02}.txt").write_text(f"log {number} goes on in run {runs[0]}\n\n")
        (folder / f"log-{10 * runs[0] - 1:02}.txt").unlink()
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "_read_all", read)
        corpus = prepare(folder, tmp_path / "cache")
    assert runs[0] == 2
    statuses = {Path(report.path).name: report.status for report in corpus.files}
    moving = {name for name, status in statuses.items() if status in ("changed", "unreadable")}
    assert moving == {f"log-{number:02}.txt" for number in range(10, 20)}
    (source,) = corpus.sources
    assert [Path(name).name for name in source.files] == [name for name in sorted(statuses) if name not in moving]
    units = {str(source.files[unit]) for unit, _ in corpus.documents}
    assert str(folder / "z.txt") in units
    for name in moving:
        (folder / name).unlink(missing_ok=True)
    assert prepare(folder, tmp_path / "cache").key == corpus.key
