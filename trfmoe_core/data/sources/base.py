"""What a source is: an entry of a node's `data`, checked, and the documents that it leads to."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trfmoe_core.config.data import DataConfig
from trfmoe_core.config.sources import SourceSettings
from trfmoe_core.data.documents.records import SourceFile, Unit
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats.reading import join_reports
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.errors import DataError


@dataclass(frozen=True)
class Context:
    """What a source needs to be opened.

    Attributes:
        config: how text becomes tokens.
        cache_dir: where downloads and extracted text are kept.
        progress: told (what, done, total) while it works.
    """

    config: DataConfig
    cache_dir: Path
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass(frozen=True)
class Source:
    """An opened source.

    Attributes:
        name: printable, e.g. the path.
        settings: the entry it was opened from, with its weight and what happens at its end.
        files: every file that was found, in order; those that are not read carry their report.
        units: what is read, in order; reading them one by one gives the source's documents (`formats.base.Reading`).
        notes: what the owner should know.
    """

    name: str
    settings: SourceSettings
    files: list[SourceFile]
    units: list[Unit]
    notes: list[str] = field(default_factory=list)

    @property
    def identity(self) -> list[list[object]]:
        """What decides the documents, as JSON values: no path and no time, so equal contents are equal."""
        return [list(unit.identity) for unit in self.units]

    def reports(self, units: Sequence[FileReport]) -> list[FileReport]:
        """Returns one report a file, in the order of `files`, from the reports of `units` in their order."""
        parts: dict[Path, list[FileReport]] = {}
        for unit, report in zip(self.units, units, strict=True):
            parts.setdefault(unit.file.path, []).append(report)
        return [join_reports(file, parts.get(file.path, [])) for file in self.files]


class DataSource(SourceSettings):
    """An entry of a node's `data` that can be opened."""

    @abstractmethod
    def open(self, context: Context) -> Source:
        """Returns the source, ready to be read.

        Raises:
            DataError: it cannot be read, with what to do about it.
        """


def open_sources(entries: Sequence[str | SourceSettings], context: Context) -> list[Source]:
    """Opens the entries of a node's `data`: paths that are plain strings belong together and are one source.

    Raises:
        DataError: there are none, or one cannot be opened.
    """
    if not entries:
        raise DataError("no data: the list of files and folders is empty; name at least one")
    from trfmoe_core.data.sources.files import FilesSettings, open_paths

    keep_offline(context.config)
    plain = [entry for entry in entries if isinstance(entry, str)]
    sources: list[Source] = []
    for entry in entries:
        if isinstance(entry, DataSource):
            sources.append(entry.open(context))
        elif entry is plain[0]:
            sources.append(open_paths(plain, FilesSettings(source="files", path=plain[0]), context))
    return sources
