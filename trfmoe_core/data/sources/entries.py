"""Opens all entries of a node's `data`."""

from collections.abc import Sequence

from trfmoe_core.config.sources import SourceSettings
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.sources.base import DataSource, OpenContext, OpenedSource
from trfmoe_core.data.sources.files import FilesSource, open_paths
from trfmoe_core.errors import DataError


def check_sources(entries: Sequence[str | SourceSettings], context: OpenContext) -> None:
    """Makes sure that the entries of a node's `data` can be opened, as far as that shows without reading them.

    Raises:
        DataError: there are no entries, or one cannot be opened; lists all that cannot.
    """
    problems = [] if entries else ["no data: the list of files and folders is empty; name at least one"]
    for entry in entries:
        source = FilesSource(source="files", path=entry) if isinstance(entry, str) else entry
        try:
            if isinstance(source, DataSource):
                source.check(context)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))


def describe_sources(entries: Sequence[str | SourceSettings], context: OpenContext) -> list[str]:
    """Returns one line for every entry of a node's `data`: what there is, without reading it.

    Raises:
        DataError: an entry cannot be opened.
    """
    sources = [FilesSource(source="files", path=one) if isinstance(one, str) else one for one in entries]
    return [source.found(context) for source in sources if isinstance(source, DataSource)]


def open_sources(entries: Sequence[str | SourceSettings], context: OpenContext) -> list[OpenedSource]:
    """Opens the entries of a node's `data`. All entries that are plain paths form one source together.

    Raises:
        DataError: there are no entries, or one cannot be opened.
    """
    if not entries:
        raise DataError("no data: the list of files and folders is empty; name at least one")
    keep_offline(context.config)
    paths = [entry for entry in entries if isinstance(entry, str)]
    sources: list[OpenedSource] = []
    for entry in entries:
        if isinstance(entry, DataSource):
            sources.append(entry.open_part(context))
        elif entry is paths[0]:
            sources.append(open_paths(paths, FilesSource(source="files", path=paths[0]), context))
    return sources
