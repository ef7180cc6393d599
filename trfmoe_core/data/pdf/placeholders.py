"""Pages that only say that the viewer cannot show the real document: covers of portfolios, and XFA forms."""

import re
from collections.abc import Sequence

_MAX_PAGES = 2
_MAX_CHARACTERS = 2000
_XFA = re.compile(
    r"if this message is not eventually replaced|to view the full contents of this document, you need a later version|"
    r"please wait\s*\.\.\..{0,400}pdf viewer",
    re.IGNORECASE | re.DOTALL,
)
_PORTFOLIO = re.compile(r"open this pdf portfolio|this pdf (?:portfolio|package)", re.IGNORECASE)


def is_xfa_notice(pages: Sequence[str], *, is_xfa: bool = False) -> bool:
    """Returns True if the pages are what viewers without XFA show of a form. `is_xfa`: the file says that it is one."""
    return _are_short(pages) and (is_xfa or _XFA.search(" ".join(pages)) is not None)


def is_portfolio_notice(pages: Sequence[str]) -> bool:
    """Returns True if the pages are what viewers without portfolios show of one."""
    return _are_short(pages) and _PORTFOLIO.search(" ".join(pages)) is not None


def _are_short(pages: Sequence[str]) -> bool:
    return len(pages) <= _MAX_PAGES and sum(map(len, pages)) <= _MAX_CHARACTERS
