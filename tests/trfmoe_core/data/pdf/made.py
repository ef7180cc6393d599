"""Small PDFs, made object by object, with whatever a test needs wrong in them."""

import io
from collections.abc import Mapping, Sequence

HELVETICA = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
# A subset font without an encoding and without a character map.
NO_MAP = (
    "<</Type/Font/Subtype/TrueType/BaseFont/ABCDEF+Subset/FirstChar 1/LastChar 120/Widths["
    + "500 " * 120
    + "]/FontDescriptor<</Type/FontDescriptor/FontName/ABCDEF+Subset/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0"
    "/Ascent 800/Descent -200/CapHeight 700/StemV 80>>>>"
)


def content(
    lines: Sequence[str | bytes], font: str = "F1", *, at: tuple[float, float] = (50, 800), mode: int = 0
) -> bytes:
    """Returns the operators that show these lines, from top to bottom."""
    shown = b" ".join(
        b"<%s> Tj T*" % (line.encode("cp1252") if isinstance(line, str) else line).hex().encode() for line in lines
    )
    return b"BT /%s 10 Tf %d Tr 12 TL %f %f Td %s ET\n" % (font.encode(), mode, *at, shown)


def document(
    pages: Sequence[bytes],
    *,
    fonts: Mapping[str, str] | None = None,
    page: str = "",
    catalog: str = "",
    more: Sequence[bytes] = (),
) -> bytes:
    """Returns a PDF with one page for each content.

    Args:
        pages: operators of each page.
        fonts: font dictionaries by name; F1 is Helvetica without them.
        page: entries of every page.
        catalog: entries of the catalogue.
        more: objects that the entries refer to, from object 3 on.
    """
    named = " ".join(f"/{name} {font}" for name, font in (fonts or {"F1": HELVETICA}).items())
    first = 3 + len(more)
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        f"<</Type/Catalog/Pages 2 0 R{catalog}>>".encode(),
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]/Resources<</Font<<{named}>>>>/MediaBox[0 0 595 842]>>".encode(),
        *more,
    ]
    for number, operators in enumerate(pages):
        objects.append(f"<</Type/Page/Parent 2 0 R/Contents {first + 2 * number + 1} 0 R{page}>>".encode())
        objects.append(b"<</Length %d>>\nstream\n%s\nendstream" % (len(operators), operators))
    sink = io.BytesIO()
    sink.write(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(sink.tell())
        sink.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = sink.tell()
    sink.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1))
    sink.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    sink.write(b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, start))
    return sink.getvalue()


def with_attachments(cover: bytes, attachments: Sequence[tuple[str, bytes]]) -> bytes:
    """Returns the PDF with attached files."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(cover))
    for name, data in attachments:
        writer.add_attachment(name, data)
    sink = io.BytesIO()
    writer.write(sink)
    return sink.getvalue()
