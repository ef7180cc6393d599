import ast
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.sample import owners as sample
from trfmoe_core.data.sample.owners import OWNERS, Size, build_sample
from trfmoe_core.data.sample.stdlib_text import language_manuals, library_folder, module_manuals
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import DataError

SMALL = Size(book=6_000, shard=6_000)
COLUMNS = ["text", "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count"]


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "with space" / "sample"
    assert build_sample(root, SMALL) == [root / owner for owner in OWNERS]
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_three_owners_have_books_and_a_shard_of_their_own(small_sample: Path, tmp_path: Path) -> None:
    texts = set()
    for owner in OWNERS:
        books = sorted((small_sample / owner / "pdfs").iterdir())
        assert 4 <= len(books) <= 8
        table = pq.read_table(small_sample / owner / "shard.parquet")
        assert table.column_names == COLUMNS
        assert [str(kind) for kind in table.schema.types] == ["string"] * 7 + ["double", "int64"]
        texts |= set(table["text"].to_pylist())
        corpus = prepare_corpus([str(small_sample / owner)], DataConfig(), ByteTokenizer(), tmp_path)
        assert {report.status for report in corpus.files} == {"ok"}
        assert all(report.pages >= 2 for report in corpus.files if report.kind == "pdf")
        in_books = sum(report.characters for report in corpus.files if report.kind == "pdf")
        assert in_books >= sum(report.characters for report in corpus.files) / 2
        assert corpus.bigram_bits_per_byte < 6
    assert len(texts) == sum(pq.read_metadata(small_sample / owner / "shard.parquet").num_rows for owner in OWNERS)
    assert not any(str(Path.home()) in text or str(library_folder()) in text for text in texts)


def test_two_builds_give_the_same_bytes(small_sample: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    build_sample(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(small_sample)


def test_owners_share_no_module() -> None:
    lists = [modules for books in sample._BOOKS.values() for modules in books.values() if modules != sample._REFERENCE]
    names = " ".join([*lists, *sample._SHARDS.values()]).split()
    assert len(names) == len(set(names))
    roots = [name.split("/")[0] for name in names if "/" in name]
    assert not set(roots) & set(names)


def test_a_whole_sample_is_kept_and_a_part_of_one_replaced(small_sample: Path, tmp_path: Path) -> None:
    root = tmp_path / "sample"
    shutil.copytree(small_sample, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    build_sample(root, SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
    (root / "network" / "shard.parquet").unlink()
    build_sample(root, SMALL)
    assert contents(root) == contents(small_sample)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear to me")
    with pytest.raises(DataError, match=r"holds other files, such as .*mine\.txt"):
        build_sample(tmp_path, SMALL)
    with pytest.raises(DataError, match="is a file"):
        build_sample(tmp_path / "mine.txt", SMALL)
    (tmp_path / "sample.json").write_text(json.dumps({"files": {"mine.txt": 3}}))
    (tmp_path / "other").touch()
    with pytest.raises(DataError, match="other"):
        build_sample(tmp_path, SMALL)
    assert (tmp_path / "mine.txt").read_text() == "dear to me"


def test_an_interrupted_build_leaves_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "write_shard", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_sample(tmp_path / "sample", SMALL)
    assert not list(tmp_path.iterdir())


def test_manuals_are_what_the_sources_say() -> None:
    (manual,) = module_manuals(["bisect", "no_such_module"])
    tree = ast.parse((library_folder() / "bisect.py").read_bytes())
    assert manual.name == "bisect"
    assert (ast.get_docstring(tree) or "?") in manual.text or len(ast.get_docstring(tree) or "") < 60
    assert "The function insort_right\n\nInsert item x in list a" in manual.text
    topics = {manual.name: manual for manual in language_manuals()}
    assert "Lambda expressions" in topics["lambda"].text
    assert "***" not in topics["lambda"].text
