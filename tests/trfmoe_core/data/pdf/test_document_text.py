"""Whole documents, read by the engines in this process."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_files import page, pdf
from tests.trfmoe_core.data.pdf.damage.test_judge import PROSE
from tests.trfmoe_core.data.pdf.made import HELVETICA, NO_MAP, content, document, with_attachments
from trfmoe_core.data.pdf import read_pages
from trfmoe_core.data.pdf.document_text import Options, Reading, read_pdf
from trfmoe_core.data.pdf.engines import EngineChoice, open_document

ENGINES: tuple[EngineChoice, ...] = ("auto", "pdfium", "pypdf")
LINES = PROSE.split("\n")[:-1]
CODES = [bytes(3 + (n * 7 + k * k) % 26 for k in range(60)) for n in range(20)]


def read(data: bytes, engine: EngineChoice = "auto", *, drop_headers: bool = True) -> Reading:
    return read_pdf(data, Options(engine, (), drop_headers, 60.0))


@pytest.mark.parametrize("engine", ENGINES)
def test_pages_without_a_character_map_are_dropped_and_counted(engine: EngineChoice) -> None:
    spoilt, sound = content(CODES, "F2"), [content([f"Page {n} tells", *LINES]) for n in range(17)]
    fonts = {"F1": HELVETICA, "F2": NO_MAP}
    reading = read(document([*sound[:9], spoilt, *sound[9:], spoilt, spoilt], fonts=fonts), engine)
    assert (reading.status, reading.notes[0]) == ("partial", "3 of 20 pages unreadable (no character map)")
    assert reading.page_errors == [f"page {n}: unreadable (no character map)" for n in (10, 19, 20)]
    assert [n for n, text in enumerate(reading.texts, 1) if not text] == [10, 19, 20]
    alone = read(document([spoilt + content(["Fig. 3"], at=(50, 90))], fonts=fonts), engine)
    assert (alone.status, alone.notes, alone.texts) == ("broken", ["1 of 1 page unreadable (no character map)"], [])


def test_unreadable_lines_of_a_readable_page_are_left_out_and_counted() -> None:
    lines = content(CODES[:1], "F2", at=(50, 90))
    (reading,) = [read(document([content(LINES) + lines], fonts={"F1": HELVETICA, "F2": NO_MAP}))]
    assert reading.texts == ["\n".join(LINES)]
    assert reading.notes == ["1 unreadable lines left out"]


class Readings:
    """A document that an engine reads as it is told."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.fields_cut, self.is_xfa = texts, 0, False
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.texts)

    def text(self, number: int) -> str:
        self.read.append(number)
        if self.texts[number] == "error":
            raise ValueError("this page is malformed")
        return self.texts[number]

    def is_overlaid(self, number: int) -> bool:
        return True

    def attachments(self) -> list[tuple[str, bytes]]:
        return []

    def close(self) -> None: ...


def test_every_page_comes_from_the_engine_that_reads_it_better(monkeypatch: pytest.MonkeyPatch) -> None:
    glued = PROSE.replace(" ", "")
    both = {
        "pdfium": Readings([PROSE, glued, glued, "error", "error", "", PROSE]),
        "pypdf": Readings(["other", "a page of words", " ".join(PROSE), "the page at last", "error", "faint", "other"]),
    }
    monkeypatch.setattr(read_pages, "open_document", lambda name, data, passwords: both[name])
    reading = read(b"")
    assert reading.texts[1::2] == ["a page of words", "the page at last", "faint"]
    assert (reading.texts[0], reading.texts[2]) == (PROSE.strip(), "")
    assert both["pypdf"].read == [1, 2, 3, 4, 5], "sound pages are read once"
    assert reading.notes[:2] == [
        "1 of 7 pages unreadable (words glued)",
        "1 of 7 pages lost, first page 5: ValueError: this page is malformed",
    ]
    both["pypdf"].read = []
    read_pdf(b"", Options("auto", (), True, 0.0))
    assert both["pypdf"].read == [], "no time is left for it"


def test_the_encoding_of_the_pdf_comes_before_that_of_its_font() -> None:
    shown = "Nobody had asked him for these numbers, and when"
    data = document([content([shown])], fonts={"F1": "5 0 R"}, more=cff_font())
    assert read(data).texts == [shown]
    assert read(data, "pypdf").texts != [shown], "the font's encoding is another one"


def cff_font() -> list[bytes]:
    """Returns descriptor, font file and font: its own encoding has every letter one place further on."""
    from fontTools.cffLib import CFFFontSet
    from fontTools.fontBuilder import FontBuilder
    from fontTools.misc.psCharStrings import T2CharString
    from fontTools.pens.t2CharStringPen import T2CharStringPen

    letters = [chr(code) for code in range(97, 123)]
    pen = T2CharStringPen(500, None)
    pen.moveTo((0, 0))
    pen.lineTo((400, 0))
    pen.lineTo((400, 700))
    pen.closePath()
    shape: T2CharString = pen.getCharString()
    names = [".notdef", "space", "period", "comma", *letters, "N"]
    builder = FontBuilder(1000, isTTF=False)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({})
    builder.setupCFF("Made", {}, dict.fromkeys(names, shape), {})
    fonts: CFFFontSet = builder.font["CFF "].cff
    own = [".notdef"] * 256
    for code, name in enumerate(letters, start=97):
        own[code + 1 if code < 122 else 97] = name
    own[32], own[44], own[46], own[78] = "a", "b", "c", "d"
    fonts[0].Encoding = own
    sink = io.BytesIO()
    fonts.compile(sink, builder.font, isCFF2=False)
    data = sink.getvalue()
    descriptor = (
        b"<</Type/FontDescriptor/FontName/ABCDEF+Made/Flags 32/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800"
        b"/Descent -200/CapHeight 700/StemV 80/FontFile3 3 0 R>>"
    )
    file = b"<</Subtype/Type1C/Length %d>>\nstream\n%s\nendstream" % (len(data), data)
    font = (
        b"<</Type/Font/Subtype/Type1/BaseFont/ABCDEF+Made/Encoding/WinAnsiEncoding/FirstChar 32/LastChar 122/Widths["
        + b"500 " * 91
        + b"]/FontDescriptor 4 0 R>>"
    )
    return [file, descriptor, font]


@pytest.mark.parametrize("engine", ENGINES)
def test_filled_fields_are_text(tmp_path: Path, engine: EngineChoice) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "form.pdf"), invariant=1)
    canvas.drawString(50, 800, "Name and town")
    form = canvas.acroForm
    form.textfield(name="name", value="Ada Lovelace", x=50, y=700, width=200, height=20)
    form.textfield(name="town", value="London", x=50, y=650, width=200, height=20)
    form.textfield(name="pin", value="1234", x=50, y=600, width=200, height=20, fieldFlags="password")
    form.textfield(name="empty", value="", x=50, y=550, width=200, height=20)
    form.textfield(name="unseen", value="not shown", x=50, y=500, width=200, height=20, annotationFlags="hidden")
    form.checkbox(name="yes", checked=True, x=50, y=450)
    canvas.showPage()
    canvas.save()
    (text,) = read((tmp_path / "form.pdf").read_bytes(), engine).texts
    assert text.split("\n") == ["Name and town", "Ada Lovelace", "London"]


@pytest.mark.parametrize("engine", ENGINES)
def test_attached_pdfs_are_read_and_others_are_named(engine: EngineChoice) -> None:
    cover = pdf([page("For the best experience, open this PDF portfolio in Acrobat X or Adobe Reader X, or later.")])
    inner = pdf([page("A report of one page."), page("And its second page.")])
    nested = with_attachments(pdf([page("A letter.")]), [("deep.pdf", pdf([page("Deep inside.")]))])
    spoilt = document([content(CODES, "F2")], fonts={"F2": NO_MAP})
    files = [
        ("report.pdf", inner),
        ("the-same.pdf", inner),
        ("letter.pdf", nested),
        ("bad.pdf", spoilt),
        ("a.xls", b"x"),
    ]
    reading = read(with_attachments(cover, files), engine)
    assert reading.texts == []
    assert [(name, one.texts) for name, one in reading.attached] == [
        ("bad.pdf", []),
        ("letter.pdf", ["A letter."]),
        ("letter.pdf/deep.pdf", ["Deep inside."]),
        ("report.pdf", ["A report of one page.", "And its second page."]),
    ]
    assert reading.notes == [
        "its page only says that it is a portfolio",
        "3 attached PDFs read, with 4 pages",
        "attached bad.pdf: broken: 1 of 1 page unreadable (no character map)",
        "attachments not read: a.xls",
    ]


def test_a_pdf_attached_to_itself_in_a_ring_ends() -> None:
    data = pdf([page("The innermost.")])
    for depth in range(6):
        data = with_attachments(pdf([page(f"Around it {depth}.")]), [("inner.pdf", data)])
    reading = read(data)
    assert [one.texts for _, one in reading.attached] == [[f"Around it {depth}."] for depth in (4, 3, 2)]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_placeholder_of_an_xfa_form_is_no_text(engine: EngineChoice) -> None:
    notice = (
        "Please wait... If this message is not eventually replaced by the proper contents of the document, your PDF "
        "viewer may not be able to display this type of document."
    )
    reading = read(pdf([page(notice)]), engine)
    assert (reading.status, reading.texts) == ("no-text", [])
    assert reading.notes[0].startswith("XFA")
    other = "Ce formulaire demande un autre logiciel."
    form = "/NeedsRendering true/AcroForm<</Fields[]/XFA(<xdp/>)>>"
    assert read(document([content([other])], catalog=form), engine).notes == reading.notes
    assert read(document([content([other])]), engine).texts == [other]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_outside_the_crop_box_is_no_text(engine: EngineChoice) -> None:
    operators = content(["Inside the box."], at=(150, 500)) + content(["Printer's marks."], at=(10, 30))
    assert read(document([operators], page="/CropBox[100 100 500 700]"), engine).texts == ["Inside the box."]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", ["a layer of recognised text", "struck twice by lines", "struck twice by page"])
def test_doubled_text_is_taken_once(engine: EngineChoice, how: str) -> None:
    if how == "struck twice by lines":
        shown = b"".join(
            content([line], at=(50 + shift, 800 - 12 * n)) for n, line in enumerate(LINES) for shift in (0.0, 0.3)
        )
    else:
        shown = content(LINES) + content(LINES, at=(50.2, 799.9), mode=3 if "recognised" in how else 0)
    (text,) = read(document([shown]), engine).texts
    assert text.split() == PROSE.split()


def test_two_copies_beside_each_other_stay() -> None:
    (text,) = read(document([content(LINES) + content(LINES, at=(50, 400))])).texts
    assert text.split() == PROSE.split() * 2


def test_blank_pages_keep_their_numbers() -> None:
    reading = read(document([b"", content(LINES[:2]), b"", content(LINES[2:4])]))
    assert [bool(text) for text in reading.texts] == [False, True, False, True]
    assert "2 of 4 pages without text" in reading.notes


def test_documents_are_closed(monkeypatch: pytest.MonkeyPatch, write_pdf: Callable[..., Path], tmp_path: Path) -> None:
    closed = []

    def opened(name: str, data: bytes, passwords: tuple[str, ...]) -> object:
        found = open_document(name, data, passwords)  # type: ignore[arg-type]
        close = found.close
        monkeypatch.setattr(found, "close", lambda: (closed.append(name), close()))
        return found

    monkeypatch.setattr(read_pages, "open_document", opened)
    read(write_pdf(tmp_path / "picture.pdf", [[]]).read_bytes())
    assert sorted(closed) == ["pdfium", "pypdf"]
