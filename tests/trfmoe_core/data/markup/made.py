"""Documents made on the spot, member by member."""

import io
import zipfile

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
ODF = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("style", "style"),
        ("draw", "drawing"),
        ("manifest", "manifest"),
    )
)


def package(members: dict[str, str | bytes]) -> bytes:
    """A zip container. The member that tells its format is not compressed, as the formats require."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED)
    return out.getvalue()


def docx(body: str, **sheets: str) -> bytes:
    """A DOCX with this body, and with sheets such as `styles` or `footnotes`."""
    related = "".join(f'<Relationship Type="{OFFICE}/{kind}" Target="{kind}.xml"/>' for kind in sheets)
    main = f'<Relationship Type="{OFFICE}/officeDocument" Target="word/document.xml"/>'
    return package(
        {
            "_rels/.rels": f"<Relationships {PACKAGE}>{main}</Relationships>",
            "word/_rels/document.xml.rels": f"<Relationships {PACKAGE}>{related}</Relationships>",
            "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
            **{f"word/{kind}.xml": f"<w:{kind} {W}>{content}</w:{kind}>" for kind, content in sheets.items()},
        }
    )


def run(text: str, properties: str = "") -> str:
    """A run of a DOCX."""
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(content: str, properties: str = "") -> str:
    """A paragraph of a DOCX: runs, or plain text."""
    inner = content if content.startswith("<") else run(content)
    return f"<w:p><w:pPr>{properties}</w:pPr>{inner}</w:p>"


def odt(body: str, styles: str = "") -> bytes:
    """An ODT with this text."""
    return package(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"<office:document-content {ODF}><office:automatic-styles>{styles}</office:automatic-styles>"
            f"<office:body><office:text>{body}</office:text></office:body></office:document-content>",
        }
    )


def epub(chapters: dict[str, str], *, extra: dict[str, str | bytes] | None = None, missing: str = "") -> bytes:
    """An EPUB with these chapters, in this order, below OEBPS/. `missing` is in its spine only."""
    names = [*chapters, *filter(None, [missing])]
    items = "".join(f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    # The members lie in another order than the spine.
    pages = {f"OEBPS/{name}.xhtml": page.format(text) for name, text in reversed(chapters.items())}
    return package(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}'
            '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
            f'</manifest><spine><itemref idref="nav"/>{spine}</spine></package>',
            **pages,
            **(extra or {}),
        }
    )
