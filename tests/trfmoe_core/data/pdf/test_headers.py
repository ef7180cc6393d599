from trfmoe_core.data.pdf.headers import without_headers

SKIES = ["red", "grey", "green", "blue", "white", "black", "brown", "violet"]


def pages_of(first: str, last: str) -> list[str]:
    """Pages that differ, between a first and a last line with the page's number in the place of N."""
    text = "The sky was {sky} on that day.\nNobody wrote {sky} down."
    return [
        "\n".join([first.replace("N", str(n)), text.format(sky=sky), last.replace("N", str(n))])
        for n, sky in enumerate(SKIES, start=1)
    ]


def test_numbered_clauses_and_doses_stay() -> None:
    kept = ["§ N", "Article N", "Section N", "Chapter N", "(N)", "N.", "Step N of the plan", "Dose N mg", "Table N"]
    kept += [
        "Take N tablets daily",
        "N ml",
        "Kapitel N",
        "Глава N",
        "Theorem N",
        "€ N",
        "Patient N",
        "Dose 5 mg",
        "N %",
    ]
    for line in kept:
        pages = pages_of(line, line)
        assert without_headers(pages) == (pages, 0), line


def test_page_numbers_and_running_heads_go_and_are_counted() -> None:
    gone = ["N", "- N -", "Page N", "Page N of 8", "N / 8", "Seite N von 8", "第 N 页", "The Annals of Skies N"]
    gone += ["N The Annals of Skies", "Vol. 3 The Annals", "Chapter Two", "DRAFT", "стр. N"]
    for line in gone:
        left, removed = without_headers(pages_of(line, "- N -"))
        assert removed == 16, line
        assert left[2] == "The sky was green on that day.\nNobody wrote green down.", line


def test_roman_numbers_must_grow_with_the_page() -> None:
    romans = ["i", "ii", "iii", "iv", "v", "vi"]
    pages = [f"It is {sky}.\n{roman}" for sky, roman in zip(SKIES, romans, strict=False)]
    assert without_headers(pages)[1] == 6
    clauses = [f"It is {sky}.\nc" for sky in SKIES]
    assert without_headers(clauses)[1] == 0


def test_a_line_below_the_text_is_no_head() -> None:
    pages = [f"§ {n}\nThe keeper wrote:\nthe sky was {sky}.\nSo it was.\nSeen {n} mg" for n, sky in enumerate(SKIES, 1)]
    assert without_headers(pages) == (pages, 0)
