"""What a data source is: an entry of a node's `data` that can be opened, and the files that opening it gives."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trfmoe_core.config.data import DataConfig
from trfmoe_core.config.sources import SourceSettings
from trfmoe_core.data.documents.records import SourceFile, Unit
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats.reading import join_reports
from trfmoe_core.data.sources.partition import deal_units


@dataclass(frozen=True)
class OpenContext:
    """What a source needs to be opened.

    Attributes:
        config: how text becomes tokens.
        cache_dir: folder for downloads and extracted text.
        progress: called with (what, done, total) during long work.
    """

    config: DataConfig
    cache_dir: Path
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass(frozen=True)
class OpenedSource:
    """The files of a source, ready to be read.

    Attributes:
        name: printable, e.g. the path.
        settings: the entry of `data` that was opened.
        files: every file that was found, in order. Files that are not read carry a report.
        units: what is read, in order (`formats.reading.Reading`).
        notes: remarks for the owner of the data.
        partitioned: True if `files` and `units` are only the part that `settings.partition` gives this node.
    """

    name: str
    settings: SourceSettings
    files: list[SourceFile]
    units: list[Unit]
    notes: list[str] = field(default_factory=list)
    partitioned: bool = False

    @property
    def identity(self) -> list[list[object]]:
        """JSON values that determine the documents, without paths and times: equal contents have equal identities."""
        return [list(unit.identity) for unit in self.units]

    def reports(self, units: Sequence[FileReport]) -> list[FileReport]:
        """Returns one report per file, in the order of `files`, from one report per unit in the order of `units`."""
        parts: dict[Path, list[FileReport]] = {}
        for unit, report in zip(self.units, units, strict=True):
            parts.setdefault(unit.file.path, []).append(report)
        return [join_reports(file, parts.get(file.path, [])) for file in self.files]


class DataSource(SourceSettings):
    """Base of all sources: the settings that an entry of `data` may hold, and how the entry is opened."""

    @abstractmethod
    def open(self, context: OpenContext) -> OpenedSource:
        """Returns the source, ready to be read.

        A source that does not divide its files by `self.part` itself returns all of them: `open_part` divides the
        documents then.

        Raises:
            DataError: it cannot be read; the message says what to do.
        """

    def check(self, context: OpenContext) -> None:
        """Makes sure that the source can be opened, as far as that shows without reading or downloading anything.

        Raises:
            DataError: it cannot; the message says what to do.
        """

    def found(self, context: OpenContext) -> str:
        """Returns in a few words what there is, as far as that shows without reading or downloading anything."""
        return f"source {self.source}"

    def open_part(self, context: OpenContext) -> OpenedSource:
        """Returns this node's part of the source, ready to be read.

        Raises:
            DataError: it cannot be read.
        """
        part = self.part()
        opened = self.open(context)
        if part.of == 1 or opened.partitioned:
            return opened
        note = f"part {part.index} of {part.of}: this node keeps its own part of every file, or of the files"
        mine = deal_units(opened.units, part, context.config.piece_bytes)
        paths = {unit.file.path for unit in mine}
        # The first node reports the files that are not read.
        files = [file for file in opened.files if file.path in paths or (file.report is not None and part.index == 0)]
        return replace(opened, files=files, units=mine, notes=[*opened.notes, note], partitioned=True)
