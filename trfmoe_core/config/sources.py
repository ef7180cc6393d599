"""The entries of a node's `data`: paths, or the settings of a data source.

How a source is opened is code of `trfmoe_core.data.sources`, which registers its sources here. So the config imports
nothing of the data code.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from trfmoe_core.config.problems import describe_problems
from trfmoe_core.config.section import Section
from trfmoe_core.errors import DataError
from trfmoe_core.registry import Registry

DEFAULT = "files"


class Partition(Section):
    """`{index: 0, of: 3}`: this node's part of a source that several nodes share."""

    index: int = Field(ge=0, description="this node's number among those that share it, from 0", examples=[0])
    of: int = Field(ge=1, le=100_000, description="how many nodes share it", examples=[3])

    @model_validator(mode="after")
    def _check(self) -> "Partition":
        if self.index >= self.of:
            raise ValueError(f"index: {self.index} is not below of: {self.of}; they count from 0")
        return self


class SourceSettings(Section):
    """The settings that every entry of `data` may hold. Each source adds its own (`data.sources.base.DataSource`)."""

    source: str = Field(description="kind of source", examples=["files"])
    weight: float = Field(
        1.0, gt=0, le=1e6, description="share of the training tokens, relative to the other sources", examples=[2]
    )
    on_end: Literal["repeat", "stop"] = Field(
        "repeat", description="repeat: it begins again; stop: it pauses until the other sources have ended too"
    )
    partition: Partition | Literal["auto"] | None = Field(
        None,
        description="this node's part of a source that several nodes share; auto: the recipe's nodes share it",
        examples=["auto"],
    )

    def part(self) -> Partition:
        """Returns this node's part of the source, by default the whole.

        Raises:
            DataError: `partition` is `auto`, and no recipe has replaced it by a part.
        """
        if self.partition == "auto":
            raise DataError(
                "partition: auto shares a source among the nodes that a recipe lists; "
                "a node outside of a recipe names its part: {index: 0, of: 3}"
            )
        return self.partition or Partition(index=0, of=1)

    def resolved(self, absolute: Callable[[str], str]) -> Self:
        """Returns the entry with every path made absolute by `absolute`."""
        return self


SOURCES: Registry[type[SourceSettings]] = Registry("source", "trfmoe_core.data.sources")


def _parse(raw: Any) -> Any:
    """Returns a mapping as the settings of the source that it names, and anything else as it is."""
    if not isinstance(raw, Mapping):
        return raw
    name = raw.get("source", DEFAULT)
    if not isinstance(name, str) or name not in SOURCES.names():
        raise ValueError(f"source: {name!r} is unknown; choose one of {', '.join(SOURCES.names())}")
    kind = SOURCES.find(name)
    try:
        return kind.model_validate({**raw, "source": name})
    except ValidationError as error:
        raise ValueError("; ".join(text for _, text in describe_problems(kind, error.errors()))) from None


DataEntry = Annotated[
    Annotated[str, Field(min_length=1)] | SerializeAsAny[SourceSettings],
    BeforeValidator(_parse),
]
"""A path, or a mapping with the settings of a source, e.g. `{source: fineweb, max_documents: 1000, weight: 2}`."""


def resolved_entry(entry: str | SourceSettings, absolute: Callable[[str], str]) -> str | SourceSettings:
    """Returns the entry with its paths made absolute by `absolute`."""
    return entry.resolved(absolute) if isinstance(entry, SourceSettings) else absolute(entry)


def deal_parts(nodes: Sequence[Sequence[str | SourceSettings]]) -> list[list[str | SourceSettings]]:
    """Returns the entries of all nodes with every `partition: auto` replaced by a part.

    Nodes whose entries are equal except for `weight` and `on_end` share the source, and get their parts in order.
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


def _is_auto(entry: str | SourceSettings) -> TypeGuard[SourceSettings]:
    return isinstance(entry, SourceSettings) and entry.partition == "auto"
