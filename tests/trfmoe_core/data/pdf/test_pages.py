from trfmoe_core.data.pdf.pages import tidy


def test_headers_footers_and_page_numbers_go_and_text_stays() -> None:
    pages = [
        f"The Whale {n}\n\nParagraph {n} tells of {n * 37} fish.\nIt ends with {n * n} ships.\n\n- {n} -\nPage {n} of 9"
        for n in range(1, 8)
    ]
    tidied = tidy(pages, drop_headers=True)
    assert tidied.texts == [f"Paragraph {n} tells of {n * 37} fish.\nIt ends with {n * n} ships." for n in range(1, 8)]
    assert tidied.headers == 21
    kept = tidy(pages, drop_headers=False)
    assert kept.headers == 0
    assert kept.texts[0].startswith("The Whale 1")


def test_heads_of_left_and_right_pages_and_of_chapters_go() -> None:
    pages = [f"{['Left head', 'Right head'][n % 2]}\nLine {n} with words {n * 31}." for n in range(8)]
    pages += [f"Chapter Two\nOther line {n} with words {n * 17}." for n in range(4)]
    tidied = tidy(pages, drop_headers=True).texts
    assert [page.count("\n") for page in tidied] == [0] * 12
    assert "head" not in "".join(tidied).lower()
    assert "Chapter" not in "".join(tidied)


def test_what_only_looks_like_a_header_stays() -> None:
    tables = [f"{n} {n * 3} {n * 7}\n{n} {n} {n}" for n in range(5)]
    assert tidy(tables, drop_headers=True).texts == tables
    forms = ["Name\nDate of birth\nPlace"] * 4
    assert tidy(forms, drop_headers=True).texts == forms
    alike = [f"Item {n} costs {n * 3}\nItem {n + 1} costs {n * 5}" for n in range(6)]
    assert tidy(alike, drop_headers=True).texts == alike
    twice = ["Same start\nand one end", "Same start\nand another end"]
    assert tidy(twice, drop_headers=True).texts == twice
    far = ["Refrain\na", "b", "c", "d", "Refrain\ne", "f", "g", "h", "Refrain\ni"]
    assert tidy(far, drop_headers=True).texts == far


def test_words_torn_by_line_ends_are_joined_and_ligatures_spelt_out() -> None:
    text = "The e\ufb03cient experi-\nment of well-\nKnown co\u00ad\noperationists."
    assert tidy([text], drop_headers=True).texts == ["The efficient experiment of well-Known cooperationists."]


def test_stray_glyphs_go_and_the_text_around_them_stays() -> None:
    text = "A line with words.\n\ufffd \ufffd\ue012 /g23/g7/g12\nAnother line of words, quite a few of them."
    (page,) = tidy([text], drop_headers=True).texts
    assert " ".join(page.split()) == "A line with words. Another line of words, quite a few of them."


def test_control_characters_never_come_through() -> None:
    (page,) = tidy(["a\x00b\x07c\u200bd"], drop_headers=True).texts
    assert page == "ab cd"


def test_ligatures_of_fonts_without_a_map_are_spelt_out() -> None:
    (page,) = tidy(
        ["The signi\x0ccance of a di\x0berent coe\x0ecient was \x0crst seen o\x0b shore."], drop_headers=True
    ).texts
    assert page == "The significance of a different coefficient was first seen off shore."
