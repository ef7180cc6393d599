"""Cuts documents into pieces, at the end of a page, paragraph, line or word."""

# Where a piece prefers to end, best first: page, paragraph, line, word.
_BORDERS = (b"\f", b"\n\n", b"\n", b" ")


def cut(text: str, piece_bytes: int) -> list[str]:
    """Returns `text` in pieces of at most `piece_bytes` UTF-8 bytes, without blank ones.

    A piece ends at the last page break in its second half. If there is none it ends at the last paragraph, line or
    word there, and otherwise between two characters. Page breaks become blank lines.
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
        # The border itself may lie beyond the limit, because it is stripped off the piece.
        found = data.rfind(border, start + piece_bytes // 2, limit + len(border))
        if found >= 0:
            return found + len(border)
    while data[limit] & 0xC0 == 0x80:
        limit -= 1
    return limit
