import pytest

from tests.trfmoe_core.data.markup.made import docx, package, paragraph, run
from trfmoe_core.data.markup.docx import read_docx
from trfmoe_core.data.markup.result import UnreadableError

NUMBERED = "<w:numPr><w:ilvl w:val='{0}'/><w:numId w:val='1'/></w:numPr>"
LISTS = (
    "<w:abstractNum w:abstractNumId='7'>"
    "<w:lvl w:ilvl='0'><w:start w:val='4'/><w:numFmt w:val='decimal'/><w:lvlText w:val='\u00a7 %1'/></w:lvl>"
    "<w:lvl w:ilvl='1'><w:numFmt w:val='lowerRoman'/><w:lvlText w:val='%1.%2)'/></w:lvl></w:abstractNum>"
    "<w:num w:numId='1'><w:abstractNumId w:val='7'/></w:num>"
)
STYLES = (
    "<w:style w:styleId='berschrift1'><w:name w:val='heading 1'/></w:style>"
    "<w:style w:styleId='Verzeichnis1'><w:name w:val='toc 1'/></w:style>"
    "<w:style w:styleId='Geheim'><w:name w:val='Secret'/><w:rPr><w:vanish/></w:rPr></w:style>"
)


def style(name: str) -> str:
    return f"<w:pStyle w:val='{name}'/>"


def text(body: str, **sheets: str) -> str:
    return "\n=\n".join(read_docx(docx(body, **sheets)).parts)


def test_changes_are_read_as_accepted_and_hidden_text_is_left_out() -> None:
    body = paragraph(
        run("kept ")
        + f"<w:del>{run('deleted').replace('w:t', 'w:delText')}</w:del><w:ins>{run('inserted')}</w:ins>"
        + f"<w:moveFrom>{run('moved')}</w:moveFrom><w:moveTo>{run(' moved')}</w:moveTo>"
        + run("hidden", "<w:vanish/>")
        + run(" shown", "<w:vanish w:val='0'/>")
    )
    joined = paragraph(run("One para"), "<w:rPr><w:del/></w:rPr>") + paragraph("graph.")
    assert text(body + joined) == "kept inserted moved shown\n\nOne paragraph."


def test_sections_lists_and_notes() -> None:
    body = (
        paragraph("Contents ... 3", style("Verzeichnis1"))
        + paragraph("First", style("berschrift1"))
        + paragraph(run("A claim") + "<w:r><w:footnoteReference w:id='5'/></w:r>" + run(", H"), NUMBERED.format(0))
        + paragraph("sub one", NUMBERED.format(1))
        + paragraph("sub two", NUMBERED.format(1))
        + paragraph("next", NUMBERED.format(0))
        + paragraph("Second", style("berschrift1"))
        + paragraph("secret", style("Geheim"))
        + paragraph(
            run("10") + run("6", "<w:vertAlign w:val='superscript'/>") + "<w:r><w:softHyphen/></w:r>" + run("x")
        )
    )
    note = "<w:footnote w:id='{0}'>{1}</w:footnote>"
    notes = note.format(5, paragraph("The source.")) + note.format(6, paragraph("Nobody refers to this one."))
    assert text(body, styles=STYLES, numbering=LISTS, footnotes=notes) == (
        "First\n\n\u00a7 4 A claim[1], H\n  4.i) sub one\n  4.ii) sub two\n\u00a7 5 next\n\n"
        "[1] The source.\n=\nSecond\n\n10^6x"
    )


def test_tables_and_text_boxes_are_read_once_and_in_order() -> None:
    row = "<w:tr><w:tc>{0}</w:tc><w:tc>{1}</w:tc></w:tr>"
    deleted = "<w:tr><w:trPr><w:del/></w:trPr><w:tc>" + paragraph("gone") + "</w:tc></w:tr>"
    table = f"<w:tbl>{row.format(paragraph('a'), paragraph('b') + paragraph('c'))}{deleted}</w:tbl>"
    box = f"<w:txbxContent>{paragraph('in the box')}</w:txbxContent>"
    twice = (
        f"<mc:AlternateContent xmlns:mc='urn:mc'><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
        "</mc:AlternateContent>"
    )
    body = paragraph(run("before ") + f"<w:r>{twice}</w:r>" + run("after")) + table
    assert text(body) == "before after\n\nin the box\n\na | b c"


def test_placeholders_fields_and_contents_are_left_out() -> None:
    field = f"<w:r><w:instrText>PAGE</w:instrText></w:r>{run('7')}"
    prompt = f"<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>{run('Click here')}</w:sdtContent></w:sdt>"
    gallery = "<w:docPartObj><w:docPartGallery w:val='Table of Contents'/></w:docPartObj>"
    contents = f"<w:sdt><w:sdtPr>{gallery}</w:sdtPr><w:sdtContent>{paragraph('One 1')}</w:sdtContent></w:sdt>"
    assert text(contents + paragraph(run("Page ") + field + prompt)) == "Page 7"


def test_misplaced_rows_and_endless_notes_do_no_harm() -> None:
    wild = f"<w:tc>{paragraph('a')}</w:tc><w:tbl><w:tc>{paragraph('b')}</w:tc></w:tbl><w:tr/><w:txbxContent/>"
    assert text(wild) == "a\n\nb"
    itself = "<w:r><w:footnoteReference w:id='1'/></w:r>"
    heading = paragraph(run("N") + itself, style("berschrift1"))
    notes = f"<w:footnote w:id='1'>{heading}</w:footnote>"
    assert text(heading, styles=STYLES, footnotes=notes) == "N[1]\n\n[1] N"


@pytest.mark.parametrize(
    ("data", "status", "detail"),
    [
        (b"PK\x03\x04 torn", "broken", "no whole zip"),
        (b"<html>", "broken", "no whole zip"),
        (package({"xl/workbook.xml": "<x/>"}), "broken", "names no main part"),
        (package({"word/document.xml": "<workbook/>"}), "broken", "holds a workbook"),
        (package({"word/document.xml": "<w"}), "broken", "is no XML"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + "EncryptedPackage".encode("utf-16-le"), "needs-password", "encrypted"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(99), "broken", "old Office file"),
        (package({"word/document.xml": b" " * (65 << 20)}), "too-large", "inflates to more than 64 MiB"),
    ],
)
def test_what_is_no_document_is_refused_with_its_reason(data: bytes, status: str, detail: str) -> None:
    with pytest.raises(UnreadableError, match=detail) as caught:
        read_docx(data)
    assert caught.value.status == status


def test_entities_are_never_expanded() -> None:
    whole = "<w:document xmlns:w='urn:w'><w:p><w:r><w:t>in &{0}; order</w:t></w:r></w:p></w:document>"
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol" * 10}">' for n in range(10))
    with pytest.raises(UnreadableError, match="amplification"):
        read_docx(package({"word/document.xml": f"<!DOCTYPE w [{laughs}]>{whole.format('l9')}"}))
    outside = '<!ENTITY file SYSTEM "file:///etc/hostname">'
    found = read_docx(package({"word/document.xml": f"<!DOCTYPE w [{outside}]>{whole.format('file')}"}))
    assert found.parts == ["in"]
    with pytest.raises(UnreadableError, match="Entity 'file' not defined"):
        read_docx(package({"word/document.xml": whole.format("file")}))


def test_a_style_of_ones_own_inherits_the_level_of_its_heading() -> None:
    own = "<w:style w:styleId='Mine'><w:name w:val='Chapter'/><w:basedOn w:val='berschrift1'/></w:style>"
    body = paragraph(run("One"), style("Mine")) + paragraph(run("text")) + paragraph(run("Two"), style("Mine"))
    assert read_docx(docx(body, styles=STYLES + own)).parts == ["One\n\ntext", "Two"]
