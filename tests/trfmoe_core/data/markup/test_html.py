import pytest

from trfmoe_core.data.markup.html import read_html

PAGE = """<!doctype html><title>Ward 3 | Clinic</title><style>p {}</style><script>var x = "<p>no</p>"</script>
<body><nav><a href=/>Home</a></nav><div role=search>Find</div>
<h1>Ward&nbsp;3<a href="#ward">\u00b6</a></h1>
<p>Five <b>be</b>ds &amp; a view,<br>10<sup>6</sup> cells<sup><a href="#n1">2</a></sup>.
<span hidden>h1</span><span style="display: none">h2</span><span aria-hidden="true">h3</span>
<ol start=3><li>three<li>four<ul><li>nested</ul></ol>
<table><tr><th>bed<th>name<tr><td>1<td><p>Ann</p></table>
<pre>for x:
    print(x)</pre>
<form><label>Name</label><input value=v><button>Send</button></form>
<math><mi>x</mi><annotation encoding="application/x-tex">x^2</annotation></math>
<aside>advert</aside><footer>imprint</footer>"""


def text(page: str | bytes) -> str:
    (part,) = read_html(page if isinstance(page, bytes) else page.encode()).parts
    return part


def test_the_text_of_a_page_is_read_in_order_without_what_surrounds_it() -> None:
    assert text(PAGE).replace("\xa0", " ") == (
        "Ward 3\n\nFive beds & a view,\n10^6 cells[2].\n\n3. three\n4. four\n  - nested\n\n"
        "bed | name\n1 | Ann\n\nfor x:\n    print(x)\n\nName\n\nx^2"
    )


def test_the_main_content_is_enough_and_a_title_stands_in_for_a_missing_heading() -> None:
    assert text("<title>T</title><div>around</div><main><h1>H</h1>in</main>") == "H\n\nin"
    assert text("<title>A &lt; B</title><p>in") == "A < B\n\nin"
    assert text("<main></main><p>in") == "in"


def test_a_table_that_only_arranges_a_page_is_read_as_blocks() -> None:
    cell = "<p>one<p>two<p>three<p>four"
    assert text(f"<table><tr><td>menu<td>{cell}</table>") == "menu\n\none\n\ntwo\n\nthree\n\nfour"
    nested = "<table><tr><td>side<td><table><tr><td>a<td>b</table></table>"
    assert text(nested) == "side\n\na | b"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>Grüße".encode("latin-1"), "Grüße"),
        ("<meta charset=iso-8859-1><p>“Grüße” – €".encode("cp1252"), "“Grüße” – €"),
        ("<meta charset=iso-8859-1><p>Grüße".encode(), "Grüße"),
        ('<meta http-equiv=x content="text/html; charset=koi8-r"><p>Привет'.encode("koi8-r"), "Привет"),
        ("<meta charset='Shift_JIS'><p>漢字と\nかな".encode("cp932"), "漢字とかな"),
        ("<?xml version='1.0' encoding='gb2312'?><p>汉字".encode("gb18030"), "汉字"),
        ("<p>שלום".encode("utf-16"), "שלום"),
        (b"<meta charset=utf-16><p>plain", "plain"),
        (b"<meta charset=base64><p>plain", "plain"),
        (b"<p>a\0b&#0;&#x110000;c", "ab\ufffd\ufffdc"),
    ],
)
def test_pages_are_decoded_as_browsers_do(page: bytes, expected: str) -> None:
    assert text(page) == expected


def test_bytes_that_are_no_text_in_the_declared_encoding_are_counted() -> None:
    found = read_html(b"<meta charset=euc-jp><p>" + "漢字".encode("euc-jp") + b"\xff\xff.")
    assert found.parts[0].startswith("漢字")
    assert found.lost == ["2 places are no text in the page's encoding; name another by {path: ..., encoding: NAME}"]
    assert read_html("<p>ğ".encode("cp1254"), "cp1254").parts == ["ğ"]


@pytest.mark.parametrize("tag", ["div", "table", "ul", "b", "pre"])
def test_depth_costs_no_stack_and_what_it_costs_is_told(tag: str) -> None:
    found = read_html(f"<p>first</p>{f'<{tag}>' * 50_000}deep".encode())
    assert found.parts[0].startswith("first")
    assert found.lost == ["the page's end is lost: Excessive depth in document: 2048"]


def test_pages_without_anything_give_no_text() -> None:
    assert [text(page) for page in ("", "<!-- -->", "<html></html>", "<td><tr></table></td></li>")] == [""] * 4
