import pytest

from tests.trfmoe_core.data.markup.made import ODF, odt, package
from trfmoe_core.data.markup.odt import read_odt
from trfmoe_core.data.markup.result import UnreadableError

STYLES = (
    "<text:list-style style:name='N'><text:list-level-style-number text:level='1' style:num-format='1' "
    "style:num-suffix='.'/></text:list-style>"
    "<style:style style:name='Hidden'><style:text-properties text:display='none'/></style:style>"
    "<style:style style:name='Up'><style:text-properties style:text-position='super 58%'/></style:style>"
)


def text(body: str) -> str:
    return "\n=\n".join(read_odt(odt(body, STYLES)).parts)


def test_sections_notes_lists_and_tables() -> None:
    note = (
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>Its source.</text:p>"
        "</text:note-body></text:note>"
    )
    item = "<text:list-item><text:p>{0}</text:p>{1}</text:list-item>"
    inner = f"<text:list>{item.format('deep', '')}</text:list>"
    cell = "<table:table-cell><text:p>{0}</text:p></table:table-cell>"
    body = (
        "<text:table-of-content><text:p>One 1</text:p></text:table-of-content>"
        f"<text:h text:outline-level='1'>One</text:h>\n<text:p>A claim{note},<text:s text:c='3'/>10"
        "<text:span text:style-name='Up'>6</text:span><text:line-break/>and<text:tab/>so</text:p>"
        f"<text:list text:style-name='N'>{item.format('first', inner)}{item.format('second', '')}</text:list>"
        f"<table:table><table:table-row>{cell.format('a')}{cell.format('b')}</table:table-row></table:table>"
        "<text:h text:outline-level='1'>Two</text:h>"
        "<text:p>box<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame></text:p>"
    )
    assert text(body) == (
        "One\n\nA claim[1],   10^6\nand so\n\n1. first\n  - deep\n2. second\n\na | b\n\n[1] Its source.\n=\n"
        "Two\n\nbox\n\nboxed"
    )


def test_deleted_and_hidden_text_and_comments_are_left_out() -> None:
    body = (
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
        "<text:p>kept<office:annotation><text:p>comment</text:p></office:annotation>"
        "<text:span text:style-name='Hidden'>hidden</text:span></text:p><text:p text:style-name='Hidden'>too</text:p>"
        "<text:section text:display='none'><text:p>gone</text:p></text:section>"
    )
    assert text(body) == "kept"


@pytest.mark.parametrize(
    ("members", "status", "detail"),
    [
        ({"content.xml": f"<office:x {ODF}/>"}, "broken", "has no office:text"),
        ({"other": ""}, "broken", "content.xml is missing"),
        (
            {"META-INF/manifest.xml": f"<m {ODF}><manifest:encryption-data/></m>", "content.xml": b"\0\1"},
            "needs-password",
            "encrypted",
        ),
    ],
)
def test_what_is_no_text_document_is_refused(members: dict[str, str | bytes], status: str, detail: str) -> None:
    with pytest.raises(UnreadableError, match=detail) as caught:
        read_odt(package(members))
    assert caught.value.status == status
