"""Makes sample data of three owners from the documentation inside every Python installation, without a download."""

import itertools
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trfmoe_core.data.sample.book import write_book
from trfmoe_core.data.sample.made_folder import made_folder
from trfmoe_core.data.sample.stdlib_text import Manual, Section, language_manuals, module_manuals
from trfmoe_core.errors import DataError

# Increase it whenever the same Python gives another sample.
_FORMAT = 1
_REFERENCE = "the language reference"


@dataclass(frozen=True)
class Size:
    """Characters of text in a book and in a shard, at most."""

    book: int
    shard: int


FULL = Size(book=58_000, shard=220_000)

# Owner -> books and their modules. No module is used twice, here or in a shard.
_BOOKS: dict[str, dict[str, str]] = {
    "language": {f"The Python language, volume {number}": _REFERENCE for number in range(1, 7)},
    "network": {
        "Electronic mail": "smtplib poplib imaplib mailbox email",
        "The world wide web": "urllib http",
        "Waiting for many things at once": "asyncio",
        "Sockets and addresses": "socket socketserver ssl selectors ipaddress ftplib",
        "Documents between machines": "xmlrpc html xml",
        "Work side by side": "threading queue concurrent multiprocessing",
    },
    "numbers": {
        "Decimal arithmetic": "_pydecimal",
        "Fractions, statistics and chance": "fractions statistics random numbers",
        "Drawing with a turtle": "turtle",
        "Differences, heaps and orders": "difflib heapq bisect sched operator",
        "Dates, times and calendars": "datetime calendar zoneinfo _strptime timeit",
        "Objects and sounds as bytes": "pickle pickletools wave colorsys copy csv",
    },
}
_SHARDS = {
    "language": "typing inspect dataclasses collections enum functools contextlib traceback re pdb ast dis abc types "
    "weakref pprint cmd code pkgutil tokenize trace runpy warnings doctest importlib unittest",
    "network": "logging json uuid base64 mimetypes hmac hashlib secrets wsgiref webbrowser quopri netrc stringprep "
    "encodings/idna encodings/punycode nntplib cgi telnetlib smtpd asyncore asynchat getpass contextvars",
    "numbers": "tarfile zipfile shutil os tempfile pathlib glob fnmatch gzip bz2 lzma codecs configparser argparse "
    "optparse getopt textwrap string shelve dbm locale gettext platform plistlib tomllib profile pstats _pyio io",
}
OWNERS = tuple(_BOOKS)


def build_sample(root: Path, size: Size = FULL) -> list[Path]:
    """Returns three owner folders below `root`, each with `pdfs/` and `shard.parquet` (FineWeb's nine columns).

    The same Python version and libraries give the same bytes. A complete sample of this Python is left as it is, an
    older or damaged sample is replaced. The folder appears at once, when it is complete.

    Raises:
        DataError: `root` has other files, cannot be written, or this Python has no library sources.
    """

    def fill(folder: Path) -> None:
        for owner in OWNERS:
            _build_owner(folder / owner, owner, size)

    root = made_folder(root, _identity(size), fill)
    return [root / owner for owner in OWNERS]


def _build_owner(folder: Path, owner: str, size: Size) -> None:
    (folder / "pdfs").mkdir(parents=True)
    seen: set[str] = set()
    reference = without_repeats(language_manuals(), seen)
    for title, modules in _BOOKS[owner].items():
        source = reference if modules == _REFERENCE else without_repeats(module_manuals(modules.split()), seen)
        manuals = up_to(source, size.book)
        if manuals:
            name = title.lower().replace(",", "").replace(" ", "-")
            write_book(folder / "pdfs" / f"{name}.pdf", title, manuals)
    if not any((folder / "pdfs").iterdir()):
        raise DataError(f"sample {folder}: this Python lacks the library sources it is made of; use a complete Python")
    rows = up_to(without_repeats(module_manuals(_SHARDS[owner].split()), seen), size.shard)
    write_shard(folder / "shard.parquet", rows)


def write_shard(path: Path, manuals: Iterable[Manual]) -> None:
    """Writes one row per manual in FineWeb's nine columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    rows = []
    for manual in manuals:
        source = f"Lib/{manual.name.replace('.', '/')}.py"
        url = f"https://github.com/python/cpython/blob/{version}/{source}"
        rows.append(
            {
                "text": manual.text,
                "id": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>",
                "dump": f"python-{version}",
                "url": url,
                "date": "2024-01-01T00:00:00Z",
                "file_path": source,
                "language": "en",
                "language_score": 0.99,
                "token_count": len(manual.text.split()),
            }
        )
    kinds = {"language_score": pa.float64(), "token_count": pa.int64()}
    names = ["text", "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count"]
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=32)


def without_repeats(manuals: Iterable[Manual], seen: set[str]) -> Iterator[tuple[str, Section]]:
    """Yields (manual, section) without paragraphs that came before: the reference repeats itself."""
    for manual in manuals:
        for section in manual.sections:
            blocks = []
            for block in section.text.split("\n\n"):
                words = " ".join(block.split())
                if words and words not in seen:
                    seen.add(words)
                    blocks.append(block.strip("\n"))
            if blocks:
                yield manual.name, Section(section.heading, "\n\n".join(blocks))


def up_to(sections: Iterator[tuple[str, Section]], characters: int) -> list[Manual]:
    """Returns the next sections with about `characters` characters; the rest stays in the iterator."""
    taken: list[tuple[str, Section]] = []
    left = characters
    while left > 0:
        following = next(sections, None)
        if following is None:
            break
        taken.append(following)
        left -= len(following[1].text)
    groups = itertools.groupby(taken, key=lambda pair: pair[0])
    return [Manual(name, tuple(section for _, section in group)) for name, group in groups]


def _identity(size: Size) -> dict[str, object]:
    return {"format": _FORMAT, "python": sys.version.split()[0], "book": size.book, "shard": size.shard}
