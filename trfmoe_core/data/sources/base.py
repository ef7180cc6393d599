"""What a source is: an entry of a node's `data`, checked, and the documents that it leads to."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeGuard

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from trfmoe_core.config.problems import describe_problem
from trfmoe_core.config.section import Section
from trfmoe_core.data.documents import FileReport, SourceFile, Unit
from trfmoe_core.data.formats.base import join_reports
from trfmoe_core.data.offline import keep_offline
from trfmoe_core.data.sources.partition import Partition
from trfmoe_core.errors import DataError
from trfmoe_core.registry import Registry

if TYPE_CHECKING:
    from trfmoe_core.config.schema import DataConfig

DEFAULT = "files"


@dataclass(frozen=True)
class Context:
    """What a source needs to be opened.

    Attributes:
        config: how text becomes tokens.
        cache_dir: where downloads and extracted text are kept.
        progress: told (what, done, total) while it works.
    """

    config: "DataConfig"
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
    settings: "SourceSettings"
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


class SourceSettings(Section):
    """An entry of a node's `data` that is a mapping. Subclasses say what else it may hold, and open it."""

    source: str
    weight: float = Field(1.0, gt=0, le=1e6, description="share of the training tokens, relative to the others")
    on_end: Literal["repeat", "stop"] = Field(
        "repeat", description="repeat: once given out it begins again; stop: it waits until all others are given out"
    )

    partition: Partition | Literal["auto"] | None = Field(
        None, description="this node's part of what several share; auto: dealt out among the recipe's nodes"
    )

    def my_part(self) -> Partition:
        """Returns this node's part, the whole by default.

        Raises:
            DataError: it was left to a recipe that names the other nodes, and there is none.
        """
        if self.partition == "auto":
            raise DataError(
                "partition: auto deals a source out among the nodes that a recipe lists; "
                "a node on its own says its part: {index: 0, of: 3}"
            )
        return self.partition or Partition(index=0, of=1)

    def resolved(self, absolute: Callable[[str], str]) -> Self:
        """Returns the entry with every path in it made absolute."""
        return self

    @abstractmethod
    def open(self, context: Context) -> Source:
        """Returns the source, ready to be read.

        Raises:
            DataError: it cannot be read, with what to do about it.
        """


SOURCES: Registry[type[SourceSettings]] = Registry("trfmoe_core.data.sources")


def _parse(raw: Any) -> Any:
    """Turns a mapping into the settings of the source that it names; leaves everything else alone."""
    if not isinstance(raw, Mapping):
        return raw
    name = raw.get("source", DEFAULT)
    if not isinstance(name, str) or name not in SOURCES:
        raise ValueError(f"source: {name!r} is unknown; known are {', '.join(SOURCES)}")
    kind = SOURCES[name]
    try:
        return kind.model_validate({**raw, "source": name})
    except ValidationError as error:
        raise ValueError("; ".join(describe_problem(kind, problem) for problem in error.errors())) from None


DataEntry = Annotated[
    Annotated[str, Field(min_length=1)] | SerializeAsAny[SourceSettings],
    BeforeValidator(_parse),
]
"""A path, or a mapping that names a source and says more, e.g. `{source: fineweb, max_documents: 1000, weight: 2}`."""


def resolved_entry(entry: "str | SourceSettings", absolute: Callable[[str], str]) -> "str | SourceSettings":
    """Returns the entry with its paths made absolute."""
    return entry.resolved(absolute) if isinstance(entry, SourceSettings) else absolute(entry)


def deal_parts(nodes: "Sequence[Sequence[str | SourceSettings]]") -> "list[list[str | SourceSettings]]":
    """Returns the entries of all nodes with every `partition: auto` replaced by a part.

    Nodes that name the same source share it, whatever weights they give it; they get their parts in order.
    """

    def shared(entry: SourceSettings) -> str:
        return entry.model_dump_json(exclude={"weight", "on_end"})

    sharers: dict[str, int] = {}
    dealt: dict[str, int] = {}
    autos = [entry for node in nodes for entry in node if _is_auto(entry)]
    for auto in autos:
        sharers[shared(auto)] = sharers.get(shared(auto), 0) + 1
    result = []
    for node in nodes:
        entries: list[str | SourceSettings] = []
        for entry in node:
            if not _is_auto(entry):
                entries.append(entry)
                continue
            key = shared(entry)
            part = Partition(index=dealt.get(key, 0), of=sharers[key])
            dealt[key] = part.index + 1
            entries.append(entry.model_copy(update={"partition": part}))
        result.append(entries)
    return result


def _is_auto(entry: "str | SourceSettings") -> TypeGuard[SourceSettings]:
    return isinstance(entry, SourceSettings) and entry.partition == "auto"


def open_sources(entries: "Sequence[str | SourceSettings]", context: Context) -> list[Source]:
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
        if isinstance(entry, SourceSettings):
            sources.append(entry.open(context))
        elif entry is plain[0]:
            sources.append(open_paths(plain, FilesSettings(source="files", path=plain[0]), context))
    return sources
