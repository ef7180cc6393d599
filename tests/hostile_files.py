"""A folder that nobody should have to read: good files, and every trap that files can be."""

import contextlib
import gzip
import json
import os
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

GIGABYTE = 1 << 30


def write_hostile(folder: Path, files: int, *, bomb_bytes: int = 2 * GIGABYTE, empty_pages: int = 10_000) -> int:
    """Writes `files` files below `folder`, of which the traps are the first ones; returns how many those are."""
    folder.mkdir(parents=True)
    (folder / "deep" / "er").mkdir(parents=True)
    traps = 0
    for name, write in _traps(bomb_bytes, empty_pages):
        write(folder / os.fsdecode(name))
        traps += 1
    for number in range(max(0, files - traps)):
        _write_good(folder, number)
    return traps


def _traps(bomb_bytes: int, empty_pages: int) -> Iterator[tuple[bytes, Callable[[Path], object]]]:
    def data(content: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content)

    good = pdf([page("A page of a good file.")])
    yield b"cyclic-pages.pdf", data(_objects("<</Type/Pages/Count 9/Kids[2 0 R 2 0 R]>>"))
    yield b"cyclic-parents.pdf", data(_objects("<</Type/Pages/Count 1/Kids[3 0 R]>>", "<</Type/Pages/Kids[2 0 R]>>"))
    yield b"cyclic-contents.pdf", data(_objects(*_one_page("/Contents 4 0 R"), "4 0 R"))
    yield b"cyclic-form.pdf", data(_cyclic_form())
    yield b"cyclic-xref.pdf", data(_cyclic_xref(good))
    endless = "<</Type/Pages/Count 2000000000/Kids[3 0 R]>>"
    yield b"endless-count.pdf", data(_objects(endless, "<</Type/Page/Parent 2 0 R>>"))
    yield b"deep-array.pdf", data(_objects(*_one_page("/Contents " + "[" * 100_000 + "]" * 100_000)))
    yield b"deep-names.pdf", data(_objects(*_one_page("/Resources " + "<</A " * 50_000 + ">>" * 50_000)))
    yield b"empty-pages.pdf", data(pdf([b""] * empty_pages))
    yield b"bomb.pdf", data(_bomb_pdf(bomb_bytes, nested=False))
    yield b"bomb-in-a-bomb.pdf", data(_bomb_pdf(bomb_bytes, nested=True))
    yield b"endless-operators.pdf", data(_stream_pdf(b"q Q " * (1 << 21)))
    yield b"wide-numbers.pdf", data(_stream_pdf(b"9" * (1 << 22) + b" Tf"))
    yield b"half.pdf", data(good[: len(good) // 2])
    yield b"locked.pdf", data(_locked_pdf())
    yield b"fake.pdf", data(b"<html>404</html>")
    yield b"noise.pdf", data(b"%PDF-1.7\n" + bytes(range(256)) * 2000)
    yield b"new\nline.pdf", data(good)
    yield b"not-utf-8-\xff\xfe.pdf", data(pdf([page("The name is no text.")]))
    yield b"\x1b[31mred.txt", data(b"Colours in a name.")
    yield b"deep/er/UPPER.PDF", data(pdf([page("In a folder of a folder.")]))
    yield b"empty.pdf", data(b"")
    yield b"empty.txt", data(b"")
    yield b"unreadable.pdf", _closed(good)
    yield b"unreadable.txt", _closed(b"closed")
    yield b"pipe.pdf", os.mkfifo
    yield b"pipe.txt", os.mkfifo
    yield b"socket.txt", _socket
    yield b"dangling.txt", lambda path: path.symlink_to("nowhere")
    yield b"outside.txt", lambda path: path.symlink_to("/etc/hostname")
    yield b"loop.txt", lambda path: path.symlink_to("loop.txt")
    yield b"round", lambda path: path.symlink_to(path.parent)
    yield b"bomb.txt.gz", lambda path: _gzip(path, bomb_bytes)
    yield b"bomb.jsonl.gz", lambda path: _gzip(path, bomb_bytes)
    yield b"half.jsonl.gz", data(gzip.compress(_lines(2000), mtime=0)[:-500])
    yield b"fake.jsonl.zst", data(b"no zstd at all")
    yield b"one-line.txt", data(b"word " * (1 << 22))
    yield b"zeros.txt", data(bytes(1 << 22))
    yield b"blanks.txt", data(b" \t" * (1 << 21) + b"x" + b"\n" * (1 << 21))
    yield b"latin-1.txt", data("Gr\xfc\xdfe aus K\xf6ln".encode("latin-1"))
    yield b"utf-16.txt", data("Gr\xfc\xdfe aus K\xf6ln".encode("utf-16"))
    yield b"surrogates.jsonl", data(b'{"text": "a\\ud800b"}\n')
    yield b"one-line.jsonl", data(b'{"text": "' + b"x" * (1 << 25) + b'"}')
    yield b"deep.jsonl", data(b"[" * (1 << 20) + b'\n{"text": "good"}\n')
    yield b"objects.jsonl", data(b'{"text": [' + b"{}," * (1 << 21) + b"{}]}\n")
    yield b"keys.jsonl", data(b'{"body": 1}\n' * 1000)
    yield b"fake.parquet", data(b"PAR1" + b"\xff" * 1000 + b"PAR1")
    yield b"half.parquet", data(_parquet(500)[:-200])
    yield b"spoilt.parquet", data(_spoilt(_parquet(5000)))
    yield b"long-value.parquet", data(_parquet(1, "x" * (80 << 20)))
    yield b"other.exe", data(b"MZ")


def _closed(content: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(0)

    return write


def page(text: str) -> bytes:
    """Returns the content of a page that says `text`."""
    lines = [text[start : start + 80] for start in range(0, len(text), 80)]
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    return f"BT /F1 11 Tf 14 TL 50 800 Td {shown} ET".encode("latin-1")


def pdf(contents: list[bytes]) -> bytes:
    """Returns a PDF with one page for each content."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(contents)))
    objects: list[str | bytes] = [
        f"<</Type/Pages/Count {len(contents)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, content in enumerate(contents):
        more = f"/Contents {5 + 2 * number} 0 R/Resources<</Font<</F1 3 0 R>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]{more}>>")
        objects.append(_stream(content))
    return _objects(*objects)


def _objects(*objects: str | bytes) -> bytes:
    """Returns a PDF whose object 1 is its catalogue and whose objects from 2 on are `objects`."""
    data = bytearray(b"%PDF-1.7\n")
    places = []
    for number, content in enumerate(["<</Type/Catalog/Pages 2 0 R>>", *objects], start=1):
        places.append(len(data))
        body = content.encode("latin-1") if isinstance(content, str) else content
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, start)
    return bytes(data)


def _stream(content: bytes, extra: str = "") -> bytes:
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(content), extra.encode(), content)


def _one_page(more: str) -> list[str | bytes]:
    return [
        "<</Type/Pages/Count 1/Kids[3 0 R]>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]{more}>>",
    ]


def _stream_pdf(content: bytes, extra: str = "") -> bytes:
    return _objects(*_one_page("/Contents 4 0 R"), _stream(content, extra))


def _cyclic_form() -> bytes:
    form = "/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 5 0 R>>>>"
    pages = _one_page("/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>")
    return _objects(*pages, _stream(b"/X Do /X Do"), _stream(b"/X Do /X Do", form))


def _cyclic_xref(good: bytes) -> bytes:
    start = int(good.rpartition(b"startxref\n")[2].split()[0])
    return good.replace(b"/Root 1 0 R>>", b"/Root 1 0 R/Prev %d>>" % start)


def _bomb_pdf(size: int, *, nested: bool) -> bytes:
    packed = _deflated(size)
    return _stream_pdf(
        zlib.compress(packed, 9) if nested else packed,
        "/Filter[/FlateDecode/FlateDecode]" if nested else "/Filter/FlateDecode",
    )


def _deflated(size: int) -> bytes:
    """Returns a zlib stream of about `size` bytes: one block again and again, which after a full flush may repeat."""
    block = b"0 0 m " * 174_763
    packer = zlib.compressobj(9)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    repeats = max(1, size // len(block))
    checksum = 1
    for _ in range(1 + repeats):
        checksum = zlib.adler32(block, checksum)
    return first + again * repeats + b"\x03\x00" + checksum.to_bytes(4, "big")


def _locked_pdf() -> bytes:
    import io

    from reportlab.pdfgen.canvas import Canvas

    sink = io.BytesIO()
    canvas = Canvas(sink, encrypt="key", invariant=1)
    canvas.drawString(50, 800, "For few.")
    canvas.save()
    return sink.getvalue()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
        server.bind(os.path.relpath(path))


def _gzip(path: Path, size: int) -> None:
    block = (b'{"text": "' + b"all the same " * 8000 + b'"}\n') * 10
    path.write_bytes(gzip.compress(block, mtime=0) * max(1, size // len(block)))


def _lines(count: int) -> bytes:
    return b"".join(json.dumps({"text": f"Line {n} of {n * n}."}).encode() + b"\n" for n in range(count))


def _parquet(rows: int, text: str = "") -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    texts = [text or f"Row {row} says {row * row % 9973} and {row * 7919 % 104729}." for row in range(rows)]
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=1000, use_dictionary=False)
    return sink.getvalue()


def _spoilt(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + b"\xff" * 400 + data[middle + 400 :]


def _write_good(folder: Path, number: int) -> None:
    text = f"File {number} tells of {number * number} things, of which {number % 7} are new. " * 3
    place = folder / f"part-{number % 10}"
    place.mkdir(exist_ok=True)
    if number % 5 == 0:
        (place / f"{number}.pdf").write_bytes(pdf([page(f"{text} Page {n}.") for n in range(1 + number % 3)]))
    elif number % 5 == 1:
        (place / f"{number}.jsonl").write_bytes(_lines(1 + number % 9).replace(b"Line", b"Of file %d line" % number))
    else:
        (place / f"{number}.{'md' if number % 2 else 'txt'}").write_text(text if number % 11 else "the same again")
