"""FineWeb and other data sets of the Hugging Face hub, downloaded once and then read as local parquet files."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trfmoe_core.config.sources import SOURCES
from trfmoe_core.counts import counted
from trfmoe_core.data.documents.opening import stamp_of
from trfmoe_core.data.documents.records import ReadOptions, SourceFile, Unit
from trfmoe_core.data.formats.base import format_of
from trfmoe_core.data.hub.download import HubSet, fetch
from trfmoe_core.data.hub.shards import Download, read_progress
from trfmoe_core.data.sources.base import DataSource, OpenContext, OpenedSource
from trfmoe_core.data.sources.files import Languages, lowered
from trfmoe_core.data.sources.partition import row_ranges
from trfmoe_core.errors import DataError
from trfmoe_core.places import expand, is_hub_name

REPO, CONFIG = "HuggingFaceFW/fineweb", "sample-10BT"


@SOURCES.register("fineweb")
class FineWebSource(DataSource):
    """`{source: fineweb, config: sample-10BT, max_documents: 1000}`; `repo` may name any other data set."""

    source: Literal["fineweb"] = Field(description="fineweb", examples=["fineweb"])
    repo: str = Field(
        REPO,
        min_length=1,
        description="OWNER/NAME on the hub, or a folder with a copy of a repository",
        examples=["HuggingFaceFW/fineweb-edu"],
    )
    config: str | None = Field(
        None,
        min_length=1,
        description=f"part of the data set; null: {CONFIG} for FineWeb, otherwise the data set's only one",
        examples=["sample-10BT"],
    )
    split: str = Field("train", min_length=1, description="split of the data set that is read", examples=["test"])
    revision: str | None = Field(
        None,
        min_length=1,
        description="branch, tag or commit; null: the newest when the download begins",
        examples=["v1.4.0"],
    )
    max_documents: int | None = Field(
        None,
        ge=1,
        description="most documents; null: all, which for sample-10BT are 15 million, 27 GB",
        examples=[5000],
    )
    languages: Languages = Field(
        default_factory=list,
        description="only rows whose column `language` names one of these are read",
        examples=[["en"]],
    )
    folder: str | None = Field(
        None,
        min_length=1,
        description="folder of the downloaded files; null: one in the cache",
        examples=["/srv/fineweb"],
    )

    @model_validator(mode="before")
    @classmethod
    def _default_config(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and raw.get("repo", REPO) == REPO and raw.get("config") is None:
            return {**raw, "config": CONFIG}
        return raw

    def resolved(self, absolute: Callable[[str], str]) -> Self:
        """Returns the entry with absolute paths. `repo` stays a name on the hub unless a folder of that name exists."""
        place = absolute(self.repo)
        repo = self.repo if is_hub_name(self.repo) and not Path(place).is_dir() else place
        return self.model_copy(update={"repo": repo, "folder": self.folder and absolute(self.folder)})

    @property
    def hub_set(self) -> HubSet:
        """The data set that is asked of the hub."""
        return HubSet(self.repo, self.config, self.split, self.revision)

    def place(self, cache_dir: Path) -> Path:
        """Returns the folder of the shards."""
        if self.folder:
            return expand(self.folder)
        parts = (self.repo, self.config or "", self.split, self.revision or "")
        return cache_dir / "hub" / "--".join(re.sub(r"[^\w.-]", "-", part) for part in parts if part)

    def check(self, context: OpenContext) -> None:
        """Makes sure that a folder that `repo` names is there, and offline that the documents were downloaded before.

        Raises:
            DataError: they are not.
        """
        if not is_hub_name(self.repo) and not expand(self.repo).is_dir():
            raise DataError(f"source fineweb: repo {self.repo}: no such folder; correct it, or name a data set")
        if not context.config.offline or not is_hub_name(self.repo):
            return
        folder = self.place(context.cache_dir)
        done = read_progress(folder) if folder.is_dir() else None
        have, complete = (done.rows, done.complete) if done else (0, False)
        if not complete and (self.max_documents is None or have < self.max_documents):
            wanted = "all" if self.max_documents is None else f"{self.max_documents:,}"
            raise DataError(
                f"source fineweb: {folder} holds {have:,} documents of {self.hub_set}, and {wanted} are asked for, but "
                "data.offline is true; download them once without it, or give repo: FOLDER with a copy of the data set"
            )

    def found(self, context: OpenContext) -> str:
        """Returns how many documents are wanted, and how many of them were downloaded before."""
        folder = self.place(context.cache_dir)
        done = read_progress(folder) if folder.is_dir() else None
        wanted = "all documents" if self.max_documents is None else counted(self.max_documents, "document")
        return f"{self.hub_set}: {wanted}, of which {done.rows if done else 0:,} are here; the rest is downloaded"

    def open(self, context: OpenContext) -> OpenedSource:
        """Returns the documents after downloading those that are missing.

        Raises:
            DataError: the data set cannot be downloaded, or has no text.
        """
        from trfmoe_core.data.hub.client import HuggingFace

        folder = self.place(context.cache_dir)
        download = fetch(
            self.hub_set,
            folder,
            self.max_documents,
            HuggingFace(),
            progress=lambda done, total: context.progress(f"documents of {self.hub_set}", done, total),
        )
        return self._source(folder, download)

    def _source(self, folder: Path, download: Download) -> OpenedSource:
        part = self.part()
        left = download.rows if self.max_documents is None else min(self.max_documents, download.rows)
        counts = []
        for shard in download.shards:
            counts.append(min(shard.rows, left))
            left -= counts[-1]
        options = ReadOptions(languages=lowered(self.languages))
        files: list[SourceFile] = []
        units: list[Unit] = []
        for shard, (start, stop) in zip(download.shards, row_ranges(counts, part), strict=True):
            if start == stop:
                continue
            path = folder / shard.name
            file = SourceFile(path, "parquet", shard.sha256, stamp_of(path))
            files.append(file)
            whole = Unit(file, start=start, stop=stop, options=options)
            units += [unit.identified() for unit in format_of("parquet").split(whole)]
        notes = [f"{download.skipped} rows of {self.hub_set} without text were left out"] if download.skipped else []
        if self.max_documents and sum(counts) < self.max_documents:
            notes.append(
                f"{self.hub_set} has only {counted(sum(counts), 'document')}, {self.max_documents} were asked for"
            )
        name = f"{self.hub_set}, {counted(sum(counts), 'document')}"
        return OpenedSource(name, self, files, units, notes, partitioned=True)
