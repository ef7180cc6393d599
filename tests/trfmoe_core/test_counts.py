"""Numbers of things in messages."""

from trfmoe_core.counts import counted


def test_one_thing_and_several() -> None:
    assert counted(1, "page") == "1 page"
    assert (counted(0, "page"), counted(2, "page"), counted(12_345, "file")) == ("0 pages", "2 pages", "12,345 files")
    assert (counted(1, "entry", "entries"), counted(3, "entry", "entries")) == ("1 entry", "3 entries")
