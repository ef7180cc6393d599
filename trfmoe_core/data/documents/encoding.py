"""Finds out in which encoding text is written. What no encoding fits, and what is no text at all, is refused."""

import codecs
import contextlib
import re

UNREADABLE = "\ufffd"
MAX_UNREADABLE = 0.01
"""Text with a larger share of U+FFFD is refused."""
CONFIDENCE = 0.12
"""An encoding is taken from chardet at this confidence and above: random letters get less ..."""
MIN_LETTERS = 8
"""... if there are at least this many bytes beyond ASCII. Of 376 texts of 8 words and more in 24 languages, 2 were then
read in a wrong encoding, both in Turkish."""
WESTERN_CONFIDENCE = 0.06
"""What is enough for Latin-1, Windows-1252 and Latin-9 if all letters are those of western European languages."""
_WESTERN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœŸ‘’“”„‚–—…•€£°§©®«»¿¡·´ªº±²³µ×½¼¾‰™\xa0\xad"
) | frozenset(map(chr, range(128)))
_SAMPLE_BYTES = 1 << 18

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# UTF-32's little-endian mark begins with UTF-16's, so it comes first.
_SIGNATURES = (
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"), (b"MM\0*", "a TIFF image"), (b"RIFF", "a RIFF container"), (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive or office document"), (b"Rar!", "a RAR archive"), (b"7z\xbc\xaf", "a 7z archive"),
    (b"\xd0\xcf\x11\xe0", "an old office document"), (b"\x7fELF", "a program"), (b"MZ", "a program"),
    (b"SQLite format 3", "a SQLite database"), (b"PAR1", "parquet"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"OggS", "Ogg media"), (b"ID3", "MP3 audio"),
    (b"wOF", "a font"), (b"\0asm", "a program"), (b"\x80\x02", "a pickle"), (b"\x93NUMPY", "a NumPy array"),
)  # fmt: skip
# Bytes that no text holds: the control characters besides blanks, line ends, page breaks, backspace and escape.
_CONTROLS = bytes(code for code in range(32) if code not in b"\b\t\n\v\f\r\x1b")
_MAX_CONTROLS = 0.01
_INVALID_END = 3


class NotTextError(ValueError):
    """Bytes are no text, or no encoding fits. The message is the reason."""


def find_encoding(data: bytes, whole: bool = True) -> tuple[str, str]:
    """Returns the codec of a text, and a note about it that is empty for Unicode.

    A byte order mark decides; then whether the bytes are UTF-8, of which a few may be wrong; then chardet, if it
    is sure.

    Args:
        data: the text, or its beginning.
        whole: True if `data` is all of it. Otherwise it may end inside a character.

    Raises:
        NotTextError: it is binary, or no encoding fits.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return codec, ""
    if codec := _wide_codec(data):
        return codec, ""
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if controls > _MAX_CONTROLS * len(data):
        kind = next((what for magic, what in _SIGNATURES if data.startswith(magic)), "")
        raise NotTextError(f"binary content{': ' * bool(kind)}{kind}, not text")
    if _is_utf8(data, whole=whole):
        return _escaped_codec(data) or "utf-8", ""
    codec, reason = _guess(data)
    if codec:
        return codec, f"read as {codec}, which fits best: it is no UTF-8"
    if unreadable_share(data.decode("utf-8", "replace")) <= MAX_UNREADABLE:
        return "utf-8", ""
    raise NotTextError(f"no UTF-8, and {reason}; give it as {{path: ..., encoding: NAME}}, or convert it to UTF-8")


def decode(data: bytes) -> str:
    """Returns a text whose encoding is not known.

    Raises:
        NotTextError: it is binary, or no encoding fits.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        codec, _ = find_encoding(data)
        return data.decode(codec, "replace")


def unreadable_share(text: str) -> float:
    """Returns the share of U+FFFD among the characters."""
    return 0.0 if text.isascii() else text.count(UNREADABLE) / len(text)


def _wide_codec(data: bytes) -> str:
    """Returns the codec of UTF-16 without a mark: every second byte of mostly ASCII text is zero."""
    sample = data[:4096]
    half = len(sample) // 2
    for codec, zeros, others in (("utf-16-le", sample[1::2], sample[::2]), ("utf-16-be", sample[::2], sample[1::2])):
        if half >= 2 and zeros.count(0) > 0.7 * half and others.count(0) == 0:
            return codec
    return ""


def _escaped_codec(data: bytes) -> str:
    """Returns the codec of ISO-2022-JP, which looks like ASCII with escape sequences."""
    if b"\x1b$" in data:
        with contextlib.suppress(UnicodeDecodeError):
            if "\x1b" not in data.decode("iso2022_jp"):
                return "iso2022_jp"
    return ""


def _is_utf8(data: bytes, *, whole: bool) -> bool:
    """Returns True for UTF-8 of which at most a few places are wrong. One cut character at the end is never wrong."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data, final=False)
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        wrong = text.count(UNREADABLE) - data.count(UNREADABLE.encode())
        right = len(re.findall(r"[^\x00-\x7f\ufffd]", text))
        return right > wrong and wrong <= MAX_UNREADABLE * len(text)
    return not whole or len(decoder.getstate()[0]) <= _INVALID_END


def _guess(data: bytes) -> tuple[str, str]:
    """Returns the encoding that fits, or an empty name and why none is taken."""
    import chardet

    # Lines in ASCII look the same in every encoding.
    lines = [line for line in data.splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:_SAMPLE_BYTES]
    letters = sum(byte > 127 for byte in sample)
    if letters < MIN_LETTERS:
        return "", f"{letters} bytes beyond ASCII are too few to tell the encoding"
    found = chardet.detect(sample, prefer_superset=False, compat_names=False)
    codec, confidence = found["encoding"], found["confidence"]
    if codec is None or codec.startswith("utf"):
        return "", "no other encoding fits"
    name = codecs.lookup(codec).name
    # Windows-1252 is what is called Latin-1 nearly everywhere, and holds it.
    name = "cp1252" if name == "iso8859-1" else name
    # English with a few foreign words gets a low confidence; then only letters of western Europe are believed.
    western = name in ("cp1252", "iso8859-15") and _WESTERN.issuperset(sample.decode(name, "replace"))
    enough = WESTERN_CONFIDENCE if western else CONFIDENCE
    if confidence < enough:
        return "", f"no other encoding is certain (best: {name} with confidence {confidence:.2f} of {enough})"
    return name, ""
