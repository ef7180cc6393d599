"""Reads the raw text of a document's pages, each with the engine that reads it better."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from trfmoe_core.data.pdf.damage.characters import plain_letters
from trfmoe_core.data.pdf.damage.judge import Verdict, judge
from trfmoe_core.data.pdf.doubled import taken_once
from trfmoe_core.data.pdf.engines import (
    Document,
    EngineChoice,
    EngineName,
    LockedError,
    engines_of,
    file_errors,
    open_document,
)

MAX_CHARACTERS = 1 << 26
# A page that is less plausible than this is read with the other engine too.
_DOUBTFUL = 0.5
# So many pages of a document that seem blank are read with the other engine too.
_BLANK_TRIED = 8


class TooLongError(Exception):
    """The document has too many characters."""


class BrokenError(Exception):
    """No engine can open the document. The message is the first engine's."""


@dataclass
class RawPages:
    """The pages of a document.

    Attributes:
        texts: raw text of every page; empty if it is lost.
        unreadable: kind of damage of every page that is no text, by its number from 0.
        failed: error of every page that no engine could read, by its number from 0.
        fields_cut: form fields of which only the part that they show is in the text.
        is_xfa: True for a form whose pages are made by the viewer.
    """

    texts: list[str] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    fields_cut: int = 0
    is_xfa: bool = False


def open_first(engine: EngineChoice, data: bytes, passwords: Sequence[str]) -> tuple[EngineName, Document]:
    """Opens a document with the first engine that can, and returns the engine's name with it.

    Raises:
        LockedError: it is encrypted, and no password opens it.
        BrokenError: no engine can open it.
    """
    problem: Exception | None = None
    for name in engines_of(engine):
        try:
            document = open_document(name, data, passwords)
            len(document)
            return name, document
        except _open_errors(name) as error:
            problem = problem or error
    if isinstance(problem, LockedError):
        raise problem
    raise BrokenError(describe(problem)) from problem


class PageReader:
    """Reads pages with one engine, and what it reads badly with the other one."""

    def __init__(
        self, engine: EngineChoice, data: bytes, passwords: Sequence[str], *, retry_s: float = float("inf")
    ) -> None:
        """Opens the document.

        Args:
            engine: pdfium, pypdf, or auto.
            data: the file.
            passwords: tried after the empty one.
            retry_s: seconds of processor time that the second engine may take. One page may exceed them.

        Raises:
            LockedError: it is encrypted, and no password opens it.
            BrokenError: no engine can open it.
        """
        self.name, self.document = open_first(engine, data, passwords)
        others = [name for name in engines_of(engine) if name != self.name and self.name == engines_of(engine)[0]]
        self._other_name: EngineName | None = others[0] if others else None
        self._data, self._passwords, self._left_s = data, passwords, retry_s
        self._other: Document | None = None

    def read(self) -> RawPages:
        """Returns all pages.

        Raises:
            TooLongError: there are more than `MAX_CHARACTERS` characters.
        """
        pages, characters, blank = RawPages(), 0, 0
        for number in range(len(self.document)):
            text, verdict, error = self._read(self.name, self.document, number)
            if error or verdict.plausibility < _DOUBTFUL:
                text, verdict, error = self._read_again(number, text, verdict, error)
            elif not text.strip() and blank < _BLANK_TRIED:
                blank += 1
                text, verdict, _ = self._read_again(number, text, Verdict(0.0, ""), "")
                verdict = verdict if text.strip() else Verdict(1.0, "")
            if error:
                pages.failed[number] = error
            elif not verdict.readable:
                pages.unreadable[number] = verdict.reason
                text = ""
            characters += len(text)
            if characters > MAX_CHARACTERS:
                raise TooLongError
            pages.texts.append(text)
        pages.fields_cut, pages.is_xfa = self.document.fields_cut, self.document.is_xfa
        return pages

    def close(self) -> None:
        """Releases the document's memory."""
        self.document.close()
        if self._other is not None:
            self._other.close()

    def _read(self, name: EngineName, document: Document, number: int) -> tuple[str, Verdict, str]:
        try:
            text = document.text(number)
        except file_errors(name) as error:
            return "", Verdict(0.0, ""), describe(error)
        text = plain_letters(text)
        once = taken_once(text)
        if once != text and document.is_overlaid(number):
            text = once
        return text, judge(text), ""

    def _read_again(self, number: int, text: str, verdict: Verdict, error: str) -> tuple[str, Verdict, str]:
        """Returns the better of a page's reading and the other engine's."""
        if self._other_name is None or self._left_s <= 0:
            return text, verdict, error
        started = time.process_time()
        try:
            if self._other is None:
                self._other = open_document(self._other_name, self._data, self._passwords)
            other_text, other_verdict, other_error = self._read(self._other_name, self._other, number)
        except _open_errors(self._other_name):
            self._other_name = None
            return text, verdict, error
        self._left_s -= time.process_time() - started
        if other_error or (not error and other_verdict.plausibility <= verdict.plausibility):
            return text, verdict, error
        return other_text, other_verdict, ""


def _open_errors(name: EngineName) -> tuple[type[Exception], ...]:
    return (LockedError, *file_errors(name))


def describe(error: BaseException | None) -> str:
    """Returns kind and message of an error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
