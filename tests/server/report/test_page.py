"""The report says what happened, from the journal alone, and escapes what nodes say."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from server.report.charts import heat_table, line_chart, table
from server.report.page import render, write_report
from server.run_folder.history import RunHistory
from tests.scripts.journal import events, write_journal

VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Fails on a tag that is closed wrongly, and collects outside references."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<line .../>` opens and closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(folder: Path) -> str:
    text = write_report(folder).read_text()
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert parser.outside == []
    assert "<script" not in text
    return text


def test_a_finished_run(tmp_path: Path) -> None:
    write_journal(tmp_path, events())
    text = checked(tmp_path)
    assert text.count("<svg") == 3 * 2  # two charts and the heat map, each for wide and for narrow screens
    assert text.count("stroke-dasharray") == 3 * 2
    assert '<td class="outvoted" title="3 outvoted">3 out*</td>' in text
    assert "<strong>carol</strong> was outvoted in rounds 2-3, as it was told to for a drill." in text
    assert "<strong>2.010 bits per byte</strong> (8.01 before training)" in text
    assert "pairs of bytes alone (3.60)" in text
    assert "carol: 33 % of its planned votes counted (2 of 6); 4 were outvoted" in text
    assert f"trfmoe export {tmp_path} FOLDER" in text and "3,000,000" not in text
    assert '<td class="agreed">ok</td>' in text
    assert "75.0 %" in text
    assert "0.0 % dead" in text
    assert "digest-3" in text
    assert "perplexity" in text and "54.6" in text
    assert "layers.0.experts.1" in text


def test_an_unfinished_run(tmp_path: Path) -> None:
    made = events(finished=False)
    for cut in range(len(made) + 1):
        write_journal(tmp_path, made[:cut])
        text = checked(tmp_path)
    assert "not finished" in text


def test_training_is_measured_and_dead_experts_are_named() -> None:
    measured = {"tokens": 500, "balance_loss": 1.25, "grad_norm": 0.375, "learning_rate": 0.001, "train_seconds": 2.0}
    measured |= {"data_wait_share": 0.25, "peak_memory_bytes": 123_000_000}
    history = [event | measured if event["event"] == "node_reply" else event for event in events()]
    assert RunHistory(history).dead_experts(3) == ["layers.1.experts.1"]
    text = render(RunHistory(history), Path("t"))
    assert "Dead in round 3, without any token: layers.1.experts.1." in text
    for value in ("1.250", "0.3750", "0.001000", "250.0", "25.0 %", "123 MB"):
        assert f">{value}</td>" in text, value


def test_no_journal_yet(tmp_path: Path) -> None:
    assert "not finished" in checked(tmp_path)


def test_what_nodes_say_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    made = [
        *events(),
        {"event": "node_refused", "node": evil, "reason": evil},
        {"event": "warning", "text": evil},
        {"event": "sample", "prompt": evil, "text": evil},
        {"event": "node_joined", "node": evil, "device": evil, "files": {evil: 1}, "notes": [evil], "zone": evil},
        {"event": "evaluated", "round": 1, "bits_per_byte": 1.0, "nodes": {evil: {"bits_per_byte": 1.0}}},
        {"event": "node_reply", "round": 1, "node": evil, "status": "accepted", "loss": 1.0},
        {"event": "verdicts", "round": 1, "verdicts": [{"block": evil, "outcome": evil, "outvoted": [evil]}]},
        {
            "event": "placement",
            "epoch": 2,
            "reason": evil,
            "load_min": 1,
            "load_max": 1,
            "pair_max": 1,
            "holders": {evil: [evil]},
        },
        {"event": "run_finished", "outcome": evil, "reason": evil},
    ]
    write_journal(tmp_path, made)
    text = checked(tmp_path)
    assert "&lt;script&gt;" in text


def test_charts_of_nothing_and_of_one_point() -> None:
    assert "Nothing" in line_chart({"a": [(0, float("nan"))]}, "x", "y")
    assert "<svg" in line_chart({"a": [(0, 2.0)]}, "x", "y")
    assert "Nothing" in heat_table([], "layer", "expert")


def test_a_long_run_has_its_verdicts_in_several_tables() -> None:
    text = render(RunHistory(events(rounds=45)), Path("t"))
    section = text[text.index("Verdicts by node and round") :].partition("</section>")[0]
    assert section.count("<table>") == 3 and section.count("<th>carol</th>") == 3
    assert section.count('title="3 outvoted"') == 44


def test_cells_that_are_numbers_with_a_unit_stand_like_numbers() -> None:
    made = table(("a", "b", "c"), [("99 %", "1,234 MB", "7 ok")])
    assert made.count('class="num"') == 2
    assert "num" not in table((), [("best round", "12")]), "a list of facts has no columns of numbers"


@pytest.mark.parametrize(("value", "shown"), [(1234567, "1,234,567"), (0.123456, "0.1235"), ("<a>", "&lt;a&gt;")])
def test_table_cells(value: object, shown: str) -> None:
    assert shown in table(("a",), [(value,)])
