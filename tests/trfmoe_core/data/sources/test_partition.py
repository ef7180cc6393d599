import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trfmoe_core.config import DataConfig, NodeSettings, Recipe
from trfmoe_core.config.sources import SOURCES, Partition, SourceSettings
from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog, kind_of
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.sources import DataSource, OpenContext, OpenedSource, open_sources
from trfmoe_core.data.sources.files import FilesSource
from trfmoe_core.data.sources.partition import deal_files, divided_files, row_ranges
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import ConfigError, DataError


def parts(of: int) -> list[Partition]:
    return [Partition(index=index, of=of) for index in range(of)]


@given(rows=st.lists(st.integers(0, 50), max_size=8), of=st.integers(1, 9))
def test_rows_are_dealt_once_and_evenly(rows: list[int], of: int) -> None:
    seen: list[tuple[int, int]] = []
    sizes = []
    for part in parts(of):
        mine = [(file, row) for file, (a, b) in enumerate(row_ranges(rows, part)) for row in range(a, b)]
        sizes.append(len(mine))
        seen += mine
    assert sorted(seen) == [(file, row) for file, count in enumerate(rows) for row in range(count)]
    assert max(sizes) - min(sizes) <= 1


@given(sizes=st.lists(st.integers(0, 1000), max_size=20), of=st.integers(1, 6))
def test_files_are_dealt_once_and_no_part_has_more_than_one_file_too_many(sizes: list[int], of: int) -> None:
    targets = deal_files(sizes, of)
    totals = [sum(size for size, target in zip(sizes, targets, strict=True) if target == part) for part in range(of)]
    assert max(totals) - min(totals) <= max(sizes, default=0)


@pytest.mark.parametrize(
    ("sizes", "divided"),
    [
        ([9], {0}),
        ([9, 9], {0, 1}),
        ([9, 9, 9], set()),
        ([101, 99, 100], set()),
        ([5, 90, 5, 5], {1}),
        ([0, 0, 0], set()),
    ],
)
def test_large_files_are_divided(sizes: list[int], divided: set[int]) -> None:
    assert divided_files(sizes, 3) == divided


@given(sizes=st.lists(st.integers(1, 1000), max_size=20), of=st.integers(1, 6))
def test_every_part_has_most_of_its_fair_share(sizes: list[int], of: int) -> None:
    divided = divided_files(sizes, of)
    rest = [size for number, size in enumerate(sizes) if number not in divided]
    totals = [sum(sizes[number] for number in divided) / of] * of
    for size, target in zip(rest, deal_files(rest, of), strict=True):
        totals[target] += size
    assert min(totals) >= 0.74 * sum(sizes) / of


def shared_texts(path: Path, index: int, of: int = 3, **entry: object) -> list[str]:
    """Returns the documents of one node of several that share `path`."""
    data = [{"path": str(path), "partition": {"index": index, "of": of}, **entry}]
    node = NodeSettings.model_validate({"name": "n", "data": data})
    (source,) = open_sources(node.data, OpenContext(DataConfig(), path.parent / "cache"))
    return [document.text for unit in source.units for document in Reading(unit)]


@pytest.mark.parametrize(
    ("kind", "sentences"), [("txt", 30), ("txt", 3000), ("pdf", 30), ("pdf", 300), ("lines", 200), ("lines", 3000)]
)
def test_a_single_file_is_divided_by_pieces(
    kind: str, sentences: int, tmp_path: Path, write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FORMATS.names()
    lines = [f"Sentence {number} says {number * number}." for number in range(sentences)]
    path = tmp_path / f"one.{kind}"
    if kind == "pdf":
        write_pdf(path, [lines[at : at + 30] for at in range(0, len(lines), 30)])
    else:
        monkeypatch.setitem(FORMATS._parts, "lines", OneDocumentFormat)
        path.write_text("\n".join(lines))
    parts = [" ".join(shared_texts(path, index)).split() for index in range(3)]
    assert sorted(word for part in parts for word in part) == sorted(" ".join(lines).split())
    sizes = [len(part) for part in parts]
    assert max(sizes) <= 2 * min(sizes)


def test_nodes_of_a_single_text_file_prepare_corpora(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" ".join(f"word{number}" for number in range(100)))
    tokens = []
    for index in range(3):
        source = FilesSource(source="files", path=str(tmp_path / "a.txt"), partition=Partition(index=index, of=3))
        corpus = prepare_corpus([source], DataConfig(), ByteTokenizer(), tmp_path / "cache")
        tokens.append(corpus.train_tokens + corpus.held_out_tokens)
    assert max(tokens) < 1.5 * min(tokens) < 500


def test_a_shared_folder_is_dealt_out_whole(
    tmp_path: Path, write_parquet: Callable[..., Path], write_pdf: Callable[..., Path]
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    expected = set()
    for name, rows in (("a", 7), ("b", 1), ("c", 40)):
        texts = [f"table {name} row {row}" for row in range(rows)]
        write_parquet(folder / f"{name}.parquet", text=texts)
        expected |= set(texts)
    for name in "ef":
        texts = [f"lines {name} line {line}" for line in range(10)]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        expected |= set(texts)
    for name in ("g", "h", "i"):
        (folder / f"{name}.txt").write_text(f"text {name}")
        write_pdf(folder / f"{name}.pdf", [[f"printed {name}"]])
        expected |= {f"text {name}", f"printed {name}"}
    (folder / "torn.parquet").write_bytes(b"PAR1")
    (folder / "z.exe").write_bytes(b"x")
    got: list[str] = []
    reported: set[str] = set()
    sizes = []
    for index in range(3):
        settings = NodeSettings.model_validate(
            {"name": "n", "data": [{"path": str(folder), "partition": {"index": index, "of": 3}}]}
        )
        (source,) = open_sources(settings.data, OpenContext(DataConfig(), tmp_path / "cache"))
        mine, reports = [], []
        for unit in source.units:
            reading = Reading(unit)
            mine += [document.text for document in reading]
            reports.append(reading.report)
        sizes.append(len([text for text in mine if text.startswith("table")]))
        reported |= {Path(report.path).name for report in source.reports(reports)}
        got += mine
    assert sorted(got) == sorted(expected)
    assert sizes == [16, 16, 16]
    assert reported == {path.name for path in folder.iterdir()}


def test_auto_deals_among_the_nodes_that_name_the_same_source(tmp_path: Path) -> None:
    shared = {"path": "shared", "partition": "auto"}
    nodes = [
        {"name": "a", "data": ["own", shared]},
        {"name": "b", "data": [{**shared, "weight": 2.0}]},
        {"name": "c", "data": [{"path": "other", "partition": "auto"}]},
    ]
    recipe = Recipe.model_validate({"nodes": nodes}).resolved(tmp_path)
    got = [entry.partition for node in recipe.nodes for entry in node.data if isinstance(entry, SourceSettings)]
    assert got == [Partition(index=0, of=2), Partition(index=1, of=2), Partition(index=0, of=1)]
    assert recipe.nodes[0].data[0] == str(tmp_path / "own")


def test_wrong_partitions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="3 is not below of: 3"):
        Partition(index=3, of=3)
    settings = NodeSettings.model_validate({"name": "n", "data": [{"path": str(tmp_path), "partition": "auto"}]})
    with pytest.raises(DataError, match=r"\{index: 0, of: 3\}"):
        open_sources(settings.data, OpenContext(DataConfig(), tmp_path / "cache"))


class LinesFormat(Format):
    """A format that says nothing about sharing: every line is a document."""

    suffixes = (".lines",)

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        for line in unit.file.path.read_text().splitlines():
            yield Document(line)


class OneDocumentFormat(LinesFormat):
    """A format whose file is one document, and that says nothing about sharing."""

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        yield Document(unit.file.path.read_text())


class ForgetfulSplit(LinesFormat):
    """A format whose units lose the options of the unit that they come from."""

    def split(self, unit: Unit) -> list[Unit]:
        return [Unit(unit.file)]


class ForgetfulLines(LinesFormat):
    shared_by = "lines"


class ForgetfulRows(LinesFormat):
    shared_by = "rows"

    def group_rows(self, path: Path) -> list[int]:
        return [len(path.read_text().splitlines())]


class UncountedRows(LinesFormat):
    shared_by = "rows"


class WrappingSource(DataSource):
    """A source that hands on what another one opens."""

    source: Literal["wrapping"] = "wrapping"
    path: str

    def open(self, context: OpenContext) -> OpenedSource:
        return FilesSource(source="files", path=self.path).open(context)


def lines_file(folder: Path) -> Path:
    (folder / "a.lines").write_text("\n".join(f"line {number}" for number in range(12)))
    return folder / "a.lines"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ForgetfulLines, "lines: it is shared by lines, but reads line None for node 0 of 3"),
        (ForgetfulRows, "lines: it is shared by rows, but reads more than the rows 0 to 4"),
        (UncountedRows, r"UncountedRows: it is shared by rows, but has no group_rows\(\)"),
    ],
)
def test_a_format_that_does_not_keep_to_its_rule_is_refused(
    kind: type[Format], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FORMATS.names()
    monkeypatch.setitem(FORMATS._parts, "lines", kind)
    path = lines_file(tmp_path)
    if kind is not UncountedRows:
        assert len(shared_texts(path, 0, of=1)) == 12
    with pytest.raises(ConfigError, match=message):
        shared_texts(path, 0)


@pytest.mark.parametrize("entry", [{}, {"source": "wrapping"}])
def test_units_and_sources_that_lose_the_partition_share_all_the_same(
    entry: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FORMATS.names() and SOURCES.names()
    monkeypatch.setitem(FORMATS._parts, "lines", ForgetfulSplit)
    monkeypatch.setitem(SOURCES._parts, "wrapping", WrappingSource)
    path = lines_file(tmp_path)
    parts = [shared_texts(path, index, **entry) for index in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert len({text for part in parts for text in part}) == 12


class NaiveSource(DataSource):
    """A source that forgets about partitions: it opens all of a folder."""

    source: Literal["naive"] = "naive"
    folder: str

    def open(self, context: OpenContext) -> OpenedSource:
        whole = FilesSource(source="files", path=self.folder).open(context)
        return replace(whole, settings=self, partitioned=False)


@pytest.mark.parametrize("settings", [{"source": "files", "path": "{}"}, {"source": "naive", "folder": "{}"}])
def test_formats_and_sources_that_forget_about_sharing_give_every_document_to_one_node(
    settings: dict[str, object], tmp_path: Path, write_parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FORMATS.names() and SOURCES.names()  # Loads them before more are added.
    monkeypatch.setitem(FORMATS._parts, "lines", LinesFormat)
    monkeypatch.setitem(SOURCES._parts, "naive", NaiveSource)
    folder = tmp_path / "shared"
    folder.mkdir()
    expected = [f"{name} {number}" for name in "abc" for number in range(5)] + [f"one {name}" for name in "def"]
    for name in "abc":
        (folder / f"{name}.lines").write_text("\n".join(f"{name} {number}" for number in range(5)))
    for name in "def":
        (folder / f"{name}.lines").write_text(f"one {name}")
    expected += [f"row {number}" for number in range(6)]
    write_parquet(folder / "rows.parquet", text=[f"row {number}" for number in range(6)])
    parts = []
    for index in range(3):
        entry = {key: str(value).format(folder) for key, value in settings.items()}
        entry |= {"partition": {"index": index, "of": 3}}
        node = NodeSettings.model_validate({"name": "n", "data": [entry]})
        (source,) = open_sources(node.data, OpenContext(DataConfig(), tmp_path / "cache"))
        readings = [Reading(unit) for unit in source.units]
        parts.append([document.text for reading in readings for document in reading])
        assert {reading.report.status for reading in readings} <= {"ok", "no-text"}
        assert all("belong to other nodes" in one.report.detail for one in readings if one.report.status == "no-text")
        assert len({str(unit.identity) for unit in source.units}) == len(source.units)
    assert sorted(text for part in parts for text in part) == sorted(expected)
    assert max(map(len, parts)) - min(map(len, parts)) <= 2
    assert "part 2 of 3" in source.notes[0]


def test_two_nodes_of_a_shared_source_prepare_different_corpora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SOURCES.names()
    monkeypatch.setitem(SOURCES._parts, "naive", NaiveSource)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps({"text": f"line {n} " * 9}) + "\n" for n in range(20)))
    keys = set()
    for index in range(2):
        source = NaiveSource(folder=str(tmp_path / "in"), partition=Partition(index=index, of=2))
        corpus = prepare_corpus([source], DataConfig(), ByteTokenizer(), tmp_path / "cache")
        keys.add(corpus.key)
        assert corpus.train_tokens + corpus.held_out_tokens < 20 * 80
    assert len(keys) == 2


def test_a_suffix_belongs_to_one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind_of(Path("a.lines")) == "other"
    monkeypatch.setitem(FORMATS._parts, "lines", LinesFormat)
    assert kind_of(Path("a.LINES")) == "lines"
    assert kind_of(Path("a.lines.gz")) == "other"
    monkeypatch.setattr(LinesFormat, "suffixes", (".txt",))
    with pytest.raises(ConfigError, match=r"lines and text both claim '\.txt'"):
        kind_of(Path("a.txt"))
