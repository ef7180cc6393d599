"""One page compares several runs."""

from server.report.comparison import render_comparison
from server.run_folder.history import RunHistory
from tests.scripts.journal import events
from tests.server.report.test_page import Balance


def test_two_runs_side_by_side() -> None:
    runs = {"demo-001": RunHistory(events()), "demo-<2>": RunHistory(events(rounds=2, finished=False))}
    text = render_comparison(runs, [("vote", "majority", "<mean>")])
    parser = Balance()
    parser.feed(text)
    assert parser.open == [] and parser.outside == []
    assert text.count("<polyline") == 2 * 2 * 2  # two charts, two runs, two widths
    assert "demo-&lt;2&gt;" in text and "demo-<2>" not in text
    assert "<td>majority</td><td>&lt;mean&gt;</td>" in text and "not finished" in text and "15.0" in text
    assert "The recipes are the same" in render_comparison(runs, [])
