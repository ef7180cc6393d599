import pytest

from tests.trfmoe_core.data.markup.made import epub, package
from trfmoe_core.data.markup.epub import read_epub
from trfmoe_core.data.markup.result import UnreadableError

ENCRYPTION = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData><EncryptionMethod '
    'Algorithm="{0}"/><CipherData><CipherReference URI="{1}"/></CipherData></EncryptedData></encryption>'
)


def test_chapters_come_in_the_order_of_the_spine() -> None:
    chapters = {
        "z": "<h1>One</h1><p>A&nbsp;claim<a href='#n' role='doc-noteref'>1</a>.</p><aside id='n'>Its note.</aside>",
        "a": "<h1>Two</h1><p>unclosed<br>",
        "m": "<p>漢字 שלום</p>",
    }
    found = read_epub(epub(chapters, extra={"OEBPS/nav.xhtml": "<nav>contents</nav>"}))
    assert [part.replace("\xa0", " ") for part in found.parts] == [
        "One\n\nA claim[1].\n\nIts note.",
        "Two\n\nunclosed",
        "漢字 שלום",
    ]
    assert found.lost == []


def test_a_missing_chapter_costs_only_itself() -> None:
    found = read_epub(epub({"one": "<p>text</p>"}, missing="two"))
    assert (found.parts, found.lost) == (["text", ""], ["chapter 2: OEBPS/two.xhtml is missing in it"])


def test_hidden_fonts_are_no_protection_but_encrypted_chapters_are() -> None:
    fonts = ENCRYPTION.format("http://www.idpf.org/2008/embedding", "OEBPS/one.xhtml")
    assert read_epub(epub({"one": "text"}, extra={"META-INF/encryption.xml": fonts})).parts == ["text"]
    drm = ENCRYPTION.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OEBPS/one.xhtml")
    with pytest.raises(UnreadableError, match="protected against copying") as caught:
        read_epub(epub({"one": "text"}, extra={"META-INF/encryption.xml": drm}))
    assert caught.value.status == "needs-password"


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        ({"word/document.xml": ""}, "no EPUB"),
        ({"META-INF/container.xml": "<container/>"}, "names no book"),
        (
            {"META-INF/container.xml": '<c><rootfile full-path="../../../etc/passwd"/></c>'},
            "etc/passwd is missing in it",
        ),
        ({"META-INF/container.xml": '<c><rootfile full-path="b"/></c>', "b": "<package/>"}, "names no chapters"),
    ],
)
def test_what_is_no_book_is_refused(members: dict[str, str | bytes], detail: str) -> None:
    with pytest.raises(UnreadableError, match=detail):
        read_epub(package(members))
