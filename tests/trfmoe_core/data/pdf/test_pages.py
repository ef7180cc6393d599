from trfmoe_core.data.pdf.pages import join, tidy


def test_headers_footers_and_page_numbers_go_and_text_stays() -> None:
    pages = [
        f"The Whale {n}\n\nParagraph {n} tells of {n * 37} fish.\nIt ends with {n * n} ships.\n\n- {n} -\nPage {n} of 9"
        for n in range(1, 8)
    ]
    tidied, lost = tidy(pages, drop_headers=True)
    assert tidied == [f"Paragraph {n} tells of {n * 37} fish.\nIt ends with {n * n} ships." for n in range(1, 8)]
    assert lost == []
    kept, _ = tidy(pages, drop_headers=False)
    assert kept[0].startswith("The Whale 1")


def test_heads_of_left_and_right_pages_and_of_chapters_go() -> None:
    pages = [f"{['Left head', 'Right head'][n % 2]}\nLine {n} with words {n * 31}." for n in range(8)]
    pages += [f"Chapter Two\nOther line {n} with words {n * 17}." for n in range(4)]
    tidied, _ = tidy(pages, drop_headers=True)
    assert [page.count("\n") for page in tidied] == [0] * 12
    assert "head" not in join(tidied).lower()
    assert "Chapter" not in join(tidied)


def test_what_only_looks_like_a_header_stays() -> None:
    tables = [f"{n} {n * 3} {n * 7}\n{n} {n} {n}" for n in range(5)]
    assert tidy(tables, drop_headers=True)[0] == tables
    forms = ["Name\nDate of birth\nPlace"] * 4
    assert tidy(forms, drop_headers=True)[0] == forms
    alike = [f"Item {n} costs {n * 3}\nItem {n + 1} costs {n * 5}" for n in range(6)]
    assert tidy(alike, drop_headers=True)[0] == alike
    twice = ["Same start\nand one end", "Same start\nand another end"]
    assert tidy(twice, drop_headers=True)[0] == twice
    far = ["Refrain\na", "b", "c", "d", "Refrain\ne", "f", "g", "h", "Refrain\ni"]
    assert tidy(far, drop_headers=True)[0] == far


def test_words_torn_by_line_ends_are_joined_and_ligatures_spelt_out() -> None:
    (page,), _ = tidy(
        ["The e\ufb03cient experi-\nment of well-\nKnown co\u00ad\noperation\x02\nists."], drop_headers=True
    )
    assert page == "The efficient experiment of well-\nKnown cooperationists."


def test_broken_glyphs_go_and_pages_of_nothing_else_are_reported() -> None:
    good = "A line with words.\n\ufffd \ufffd\ue012 /g23 /g7\nAnother line of words, quite a few of them."
    pages, lost = tidy([good, "\ue001\ue002\ue003\ue004 ab \ufffd\ufffd", "/g1/g2/g3/g4 x"], drop_headers=True)
    assert " ".join(pages[0].split()) == "A line with words. Another line of words, quite a few of them."
    assert pages[1:] == ["", ""]
    assert lost == [
        "page 2: 6 broken glyphs, no text to speak of",
        "page 3: 4 broken glyphs, no text to speak of",
    ]
    assert join(pages).count("\f") == 0


def test_control_characters_never_come_through() -> None:
    (page,), _ = tidy(["a\x00b\x07c\u200bd\fe"], drop_headers=True)
    assert page == "abcd\n\ne"
