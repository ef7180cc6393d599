"""Remembers the pieces that were held out although they are above the threshold of the split by hash.

Of very little text the hash alone may hold out nothing. What is held out instead depends on what else there is, so it
is written down: when the owner adds files, these pieces stay held out.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from trfmoe_core.atomic import locked, write_text
from trfmoe_core.data.batches.store import Digests
from trfmoe_core.data.documents.reports import printable
from trfmoe_core.data.prepare.split import as_numbers
from trfmoe_core.errors import DataError

FILE = "held-out.json"


class HeldOutRecord:
    """The record of a cache folder: digests of pieces, and the files of the corpus in which they were held out."""

    def __init__(self, home: Path) -> None:
        """Uses the file `held-out.json` in `home`."""
        self._path = home / FILE

    def digests(self, files: Collection[str]) -> Digests:
        """Returns (M, 2) the digests of all corpora that share a file with `files`.

        Raises:
            OSError: the record cannot be read.
            DataError: it is damaged.
        """
        found = {digest for entry in self._entries() if not entry[0].isdisjoint(files) for digest in entry[1]}
        return from_hex(sorted(found))

    def add(self, files: Collection[str], digests: Digests) -> None:
        """Adds pieces of a corpus that consists of `files`.

        Raises:
            OSError: the record cannot be read or written.
            DataError: it is damaged.
        """
        new = set(as_hex(digests))
        with locked(self._path.with_suffix(".lock")):
            entries = self._entries()
            if any(entry[0] == set(files) and entry[1] >= new for entry in entries):
                return
            rows = [{"files": sorted(entry[0]), "digests": sorted(entry[1])} for entry in (*entries, (set(files), new))]
            write_text(self._path, json.dumps(rows))

    def _entries(self) -> list[tuple[set[str], set[str]]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        try:
            return [(set(row["files"]), set(row["digests"])) for row in json.loads(text)]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{printable(self._path)}: damaged ({error}); delete it, and little text may be split anew"
            ) from error


def as_hex(digests: Digests) -> list[str]:
    """Returns every digest (M, 2) as hexadecimal digits."""
    return [one.astype(">u8").tobytes().hex() for one in digests]


def from_hex(digests: Sequence[str]) -> Digests:
    """Returns (M, 2) the digests that `as_hex` wrote."""
    return as_numbers(b"".join(bytes.fromhex(digest) for digest in digests))
