"""Finds running heads and page numbers: short lines at the edge of a page that stand on nearby pages too."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

_EDGE_LINES = 2
_MAX_HEADER = 80
_NEAR = 2
_MIN_REPEATS = 3
_MIN_HEAD_WORDS = 2
_NUMBER = re.compile(r"(?<![\d.,])[0-9]{1,6}(?![\d]|[.,]\d)")
_ROMAN = re.compile(r"[-–— ]*([ivxlc]+)[-–— ]*")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
# What may stand beside a page number: "- 3 -", "Page 3 of 9", "3 / 9", "第 3 页".
_PAGE_WORDS = re.compile(
    r"(?:[-–—|/·•~]|page|pages|pg|p\.|of|seite|von|s\.|pagina|página|pág\.|di|de|sur|sida|av|side|af|strona|str\.|z|"
    r"страница|стр\.|из|第|页|頁|页码|共|ページ|쪽|صفحة|من|\s|\d)*",
    re.IGNORECASE,
)
# Parts of a text that are numbered one by one: such a line with another number is another part, not a page number.
_NUMBERED = re.compile(
    r"[§¶#]|\b(?:sections?|secs?|articles?|art|clauses?|paragraphs?|paras?|chapters?|chap|rules?|regulations?|"
    r"amendments?|annex(?:es)?|appendix|schedules?|parts?|items?|notes?|steps?|tables?|figures?|figs?|equations?|eqs?|"
    r"questions?|answers?|exercises?|problems?|tasks?|examples?|theorems?|lemmas?|definitions?|propositions?|"
    r"corollary|remarks?|cases?|tests?|lessons?|units?|days?|weeks?|months?|years?|visits?|patients?|samples?|records?|"
    r"kapitel|abschnitt|artikel|absatz|abs|paragraf|anlage|anhang|aufgabe|frage|schritt|tabelle|abbildung|abb|satz|"
    r"beispiel|tag|woche|chapitre|annexe|exercice|tableau|étape|capítulo|artículo|sección|anexo|ejercicio|paso|tabla|"
    r"capitolo|articolo|sezione|allegato|глава|статья|пункт|раздел|таблица|рисунок)\b",
    re.IGNORECASE,
)
# Doses and other amounts.
_AMOUNT = re.compile(
    r"(?<!\w)\d[\d.,]*\s*(?:[%‰°€$£¥]|(?:mg|mcg|µg|μg|g|kg|ml|l|cl|dl|iu|mmol|mol|cm|mm|km|m|h|min|sec|tablets?|"
    r"capsules?|drops?|times|мг|мл)\b)|[€$£¥]\s*\d|\b(?:doses?|dosage|daily|dosis|доза)\b.*\d",
    re.IGNORECASE,
)


def without_headers(pages: Sequence[str]) -> tuple[list[str], int]:
    """Returns the pages without running heads and page numbers, and the number of lines that were removed.

    A line is removed if at least three pages have it at their edge, one of them at most two pages away, and if it is
    the same there but for a number that grows with the page. Lines with amounts are kept, numbered clauses too,
    and pages that would become empty.
    """
    edges = [_edge_lines(page.split("\n"), number) for number, page in enumerate(pages)]
    forms = [set().union(*lines.values()) for lines in edges]
    counts = Counter(form for page_forms in forms for form in page_forms)
    result, removed = [], 0
    for number, page in enumerate(pages):
        near = set().union(*forms[max(0, number - _NEAR) : number], *forms[number + 1 : number + 1 + _NEAR])
        repeated = {form for form in near if counts[form] >= _MIN_REPEATS}
        lines = page.split("\n")
        heads = _from_the_edges(lines, {index for index, own in edges[number].items() if not repeated.isdisjoint(own)})
        left = "\n".join(line for index, line in enumerate(lines) if index not in heads).strip("\n")
        if any(letter.isalpha() for letter in left):
            result.append(left)
            removed += len(heads)
        else:
            result.append(page)
    return result, removed


def _from_the_edges(lines: Sequence[str], heads: set[int]) -> set[int]:
    """Returns the indices of `heads` with nothing but other heads between them and the top or the bottom."""
    full = [index for index, line in enumerate(lines) if line.strip()]
    top = takewhile(heads.__contains__, full)
    bottom = takewhile(heads.__contains__, reversed(full))
    return {*top, *bottom}


def _edge_lines(lines: Sequence[str], page: int) -> dict[int, set[str]]:
    """Returns the first and last lines that may be running heads, by line index, each in its comparable forms.

    Two lines have a form in common if they are equal, or equal but for one number that grows with the page number.
    """
    full = [index for index, line in enumerate(lines) if line.strip()]
    found = {}
    for index in dict.fromkeys([*full[:_EDGE_LINES], *full[-_EDGE_LINES:]]):
        line = " ".join(lines[index].split())
        if len(line) <= _MAX_HEADER and not _AMOUNT.search(line):
            found[index] = _forms(line, page)
    return found


def _forms(line: str, page: int) -> set[str]:
    folded = line.casefold()
    roman = _ROMAN.fullmatch(folded)
    if roman:
        return {f"roman {_roman_value(roman.group(1)) - page}"}
    only_number = _PAGE_WORDS.fullmatch(line) is not None
    forms = {folded} if any(letter.isalpha() for letter in line) else set()
    for at in _NUMBER.finditer(folded) if only_number or not _NUMBERED.search(folded) else ():
        rest = f"{folded[: at.start()]}#{int(at.group()) - page}{folded[at.end() :]}"
        if only_number or (_at_an_end(at, folded) and _is_head(line[: at.start()] + line[at.end() :])):
            forms.add(rest)
    return forms


def _at_an_end(number: re.Match[str], line: str) -> bool:
    return number.start() == 0 or number.end() == len(line)


def _is_head(rest: str) -> bool:
    """Returns True if a line without its number reads like a title: words that begin with a capital."""
    words = [word for word in rest.split() if any(letter.isalpha() for letter in word)]
    first = next((letter for letter in rest if letter.isalpha()), "")
    return len(words) >= _MIN_HEAD_WORDS and not first.islower()


def _roman_value(numeral: str) -> int:
    values = [_ROMAN_VALUES[letter] for letter in numeral]
    return sum(-value if value < max(values[index:]) else value for index, value in enumerate(values))
