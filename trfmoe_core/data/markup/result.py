"""What reading a document gives: the text of its parts, or the reason why there is none."""

from dataclasses import dataclass, field

from trfmoe_core.data.documents.reports import Status


@dataclass(frozen=True)
class MarkupText:
    """The text of a document.

    Attributes:
        parts: text of every part in reading order; empty for a part that has none or is lost.
        lost: a line about everything that could not be read.
    """

    parts: list[str]
    lost: list[str] = field(default_factory=list)


class UnreadableError(Exception):
    """The document gives no text.

    Attributes:
        status: the status that the file's report gets.
        detail: the reason and the remedy.
    """

    def __init__(self, status: Status, detail: str) -> None:
        """Keeps status and reason."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
