"""Documents cut into pieces, and pieces dealt to training or held-out text by what they say."""

import hashlib
from dataclasses import dataclass, field

from trfmoe_core.data.clean import normal_form

# What a piece would rather end at, best first: page, paragraph, line, word.
_BORDERS = (b"\f", b"\n\n", b"\n", b" ")


def cut(text: str, piece_bytes: int) -> list[str]:
    """Returns `text` in pieces of at most `piece_bytes` UTF-8 bytes, without blank ones.

    A piece ends at the last page break in its second half, or else at the last paragraph, line or word border there;
    text without any is cut between two characters. Page breaks become blank lines.
    """
    data = text.encode("utf-8", "replace")
    pieces, start = [], 0
    while start < len(data):
        end = _piece_end(data, start, piece_bytes)
        piece = data[start:end].decode("utf-8").replace("\f", "\n").lstrip("\n").rstrip()
        if piece:
            pieces.append(piece)
        start = end
    return pieces


def _piece_end(data: bytes, start: int, piece_bytes: int) -> int:
    limit = start + piece_bytes
    if limit >= len(data):
        return len(data)
    for border in _BORDERS:
        # The border may hang over the limit: it is stripped off the piece.
        found = data.rfind(border, start + piece_bytes // 2, limit + len(border))
        if found >= 0:
            return found + len(border)
    while data[limit] & 0xC0 == 0x80:
        limit -= 1
    return limit


def digest(piece: str) -> bytes:
    """Returns 16 bytes that stand for what the piece says, whatever its case and blanks."""
    return hashlib.blake2b(normal_form(piece).encode("utf-8", "replace"), digest_size=16).digest()


def is_held_out(piece_digest: bytes, fraction: float) -> bool:
    """Returns whether a piece with this digest is held out: the same answer on every node, in every file order."""
    return int.from_bytes(piece_digest[:8], "big") < fraction * 2.0**64


@dataclass
class Deal:
    """Deals pieces to two sides, each distinct piece once.

    Attributes:
        held_out: for every kept piece, in order, whether it is held out.
        digests: the kept pieces' digests.
        sizes: the kept pieces' characters.
        duplicates: pieces dropped because the same text came before.
    """

    fraction: float
    held_out: list[bool] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    duplicates: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def add(self, piece: str) -> bool:
        """Returns whether the piece is kept, that is new."""
        mark = digest(piece)
        if mark in self._seen:
            self.duplicates += 1
            return False
        self._seen.add(mark)
        self.digests.append(mark)
        self.sizes.append(len(piece))
        self.held_out.append(is_held_out(mark, self.fraction))
        return True

    def ensure_both_sides(self) -> bool:
        """Holds out the last tenth of the text (at least one piece) where a side would be empty.

        Returns whether it had to. Needs two pieces or more.
        """
        if any(self.held_out) and not all(self.held_out):
            return False
        total = sum(self.sizes)
        first, tail = len(self.sizes) - 1, self.sizes[-1]
        while first > 1 and 10 * tail < total:
            first -= 1
            tail += self.sizes[first]
        self.held_out = [index >= first for index in range(len(self.sizes))]
        return True
