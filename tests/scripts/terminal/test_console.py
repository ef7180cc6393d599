"""One line a round, and what a node says cannot write to the terminal."""

import io

import pytest
from rich.console import Console

from scripts.terminal.console import RunDisplay, RunLines, quantity, size, verdict_summary
from scripts.terminal.output import Output
from scripts.terminal.training import TrainingLines
from server.run_folder.history import RunHistory
from tests.scripts.journal import events
from trfmoe_core.errors import RunFolderError


def test_every_round_is_one_line() -> None:
    lines = RunLines()
    written = [line for event in events() for line in lines.feed(event)]
    rounds = [line for line in written if line.startswith("round")]
    rest = "4.5k tokens/s  down 3 MB up 2 MB  dead experts (1): layers.1.experts.1  2.0 s"
    lost = "outvoted: carol (2 experts + trunk)"
    assert rounds == [
        "round 0/3  bits/byte 8.0100 (perplexity 54.6)  before training",
        f"round 1/3  loss 4.0000  bits/byte 6.0100 (perplexity 54.6)  2 experts + trunk unanimous  {rest}",
        f"round 2/3  loss 3.0000  bits/byte 4.0100 (perplexity 54.6)  2 experts + trunk majority; {lost}  {rest}",
        f"round 3/3  loss 2.0000  bits/byte 2.0100 (perplexity 54.6)  2 experts + trunk majority; {lost}  {rest}",
    ]
    assert written[0] == "run demo: 3 rounds, vote majority"
    assert written[-1] == "run completed"
    assert lines.doing == "completed"


def test_a_round_that_nobody_measured_has_its_line_too() -> None:
    lines = RunLines()
    written = [line for event in events() if event["event"] != "evaluated" for line in lines.feed(event)]
    rounds = [line.split("  ")[:3] for line in written if line.startswith("round")]
    assert rounds == [[f"round {n}/3", f"loss {5 - n}.0000", "bits/byte not measured"] for n in (1, 2, 3)]


@pytest.mark.parametrize("forged", [None, "text", -1, [], {"x": {}}, "gone"])
def test_an_entry_that_was_edited_is_one_error_line(forged: object) -> None:
    """Each value of each entry is replaced in turn, and everything that reads the history gets it."""
    clumsy = 0
    for number, event in enumerate(events()):
        for key in event.keys() - {"event"}:
            edited = {**event, key: forged}
            if forged == "gone":
                del edited[key]
            lines = RunLines()
            try:
                for one in (*events()[:number], edited, *events()[number + 1 :]):
                    lines.feed(one)
                assert lines.doing and lines.history.best_round is not None
            except RunFolderError as error:
                assert "put events.jsonl back from a copy" in str(error)
                clumsy += 1
    assert clumsy > 5


def test_lost_replies_refusals_and_warnings_are_shown() -> None:
    lines = RunLines()
    told = [
        {"event": "node_reply", "round": 2, "node": "bob", "status": "missing", "reason": "no answer in 5 s"},
        {"event": "node_refused", "node": "eve", "reason": "another tokenizer"},
        {"event": "warning", "text": "the run starts without eve"},
        {"event": "run_finished", "outcome": "failed", "reason": "too few nodes"},
        {"event": "of a later version"},
    ]
    assert [line for event in told for line in lines.feed(event)] == [
        "round 2: bob missing: no answer in 5 s",
        "node eve refused: another tokenizer",
        "warning: the run starts without eve",
        "run failed: too few nodes",
    ]


def test_control_characters_of_nodes_do_not_reach_the_terminal() -> None:
    output = Output()
    written = io.StringIO()
    output.console = Console(file=written, force_terminal=False, soft_wrap=True)
    with RunDisplay(output, RunLines()) as display:
        display.show({"event": "node_refused", "node": "eve\x1b[2J", "reason": "[red]x\ny"})
    assert "\x1b" not in written.getvalue()
    assert written.getvalue().count("\n") == 1


def test_a_terminal_gets_the_same_lines_above_a_bar() -> None:
    output = Output()
    written = io.StringIO()
    output.console = Console(file=written, force_terminal=True, width=200, soft_wrap=True, highlight=False)
    with RunDisplay(output, RunLines()) as display:
        for event in events():
            display.show(event)
    assert "round 3/3" in written.getvalue()


def test_numbers_for_people() -> None:
    assert [quantity(value) for value in (7, 1234, 1.2e6, 3e9)] == ["7", "1.23k", "1.2M", "3G"]
    assert [size(value) for value in (7, 1500, 2e6, 3e9)] == ["7 B", "1.5 kB", "2 MB", "3 GB"]
    blocks = [{"block": f"layers.0.experts.{number}", "outcome": "majority"} for number in range(32)]
    assert verdict_summary([*blocks, {"block": "trunk", "outcome": "kept"}]) == "32 experts majority, trunk kept"
    assert verdict_summary([]) == ""


def test_rounds_come_in_order() -> None:
    lines = RunLines()
    written: list[str] = []
    for event in events():
        lost = event["event"] == "node_reply" and (event["node"], event["round"]) == ("bob", 3)
        written += lines.feed(event | {"status": "missing", "reason": "no answer"} if lost else event)
    order = [line.split()[1] for line in written if line.startswith("round")]
    assert order == ["0/3", "1/3", "2/3", "3:", "3/3"]


def test_a_warning_of_a_round_comes_after_the_line_of_the_round_before() -> None:
    lines = RunLines()
    written: list[str] = []
    refused = {"event": "warning", "round": 2, "text": "round 2: carol is outvoted: too long"}
    suspect = {"event": "node_suspect", "round": 3, "node": "carol", "reason": "carol was alone for 1 rounds in a row"}
    sits_out = {**suspect, "event": "node_quarantined", "until_round": 9}
    at_once = {"event": "warning", "text": "2 of 3 nodes are online"}
    for event in events():
        if event["event"] == "round_planned" and event["round"] == 3:
            written += [line for other in (suspect, sits_out, at_once) for line in lines.feed(other)]
        written += lines.feed(event)
        if event["event"] == "node_reply" and (event["node"], event["round"]) == ("carol", 2):
            written += lines.feed(refused)
    told = [line.partition("  ")[0] for line in written if line.startswith(("round", "warning"))]
    assert told == [
        "round 0/3",
        "round 1/3",
        "warning: round 2: carol is outvoted: too long",
        "warning: 2 of 3 nodes are online",
        "round 2/3",
        "warning: round 3: carol was alone for 1 rounds in a row",
        "warning: round 3: carol was alone for 1 rounds in a row; it sits out until round 9",
        "round 3/3",
    ]
    assert len([text for text in lines.history.warnings if "carol was alone" in text]) == 2, "the report has them"


def test_the_line_of_the_last_round_comes_before_what_is_said_of_its_evaluation() -> None:
    *rounds, last, ended = events()
    late = {
        "event": "node_reply",
        "phase": "evaluate",
        "round": 3,
        "node": "bob",
        "status": "missing",
        "reason": "gone",
    }
    lines = RunLines()
    written = [line for event in (*rounds, late, last, ended) for line in lines.feed(event)]
    assert [line.partition("  ")[0] for line in written[-3:]] == [
        "round 3/3",
        "evaluation after round 3: bob missing: gone",
        "run completed",
    ]
    unmeasured = RunLines()
    written = [line for event in (*rounds, late, ended) for line in unmeasured.feed(event)]
    assert [line.partition("  ")[0] for line in written[-3:-1]] == [
        "round 3/3",
        "evaluation after round 3: bob missing: gone",
    ]


def test_no_round_has_two_lines_when_a_run_goes_on() -> None:
    whole = events()
    for cut in range(len(whole)):
        again = [dict(event) for event in whole if event["event"] == "run_started"]
        lines = RunLines(RunHistory(whole[:cut]))
        first = RunLines()
        before = [line for event in whole[:cut] for line in first.feed(event)]
        # A server app that goes on has the model of the last committed round measured again.
        done = max(lines.history.committed, default=0)
        measured = [event for event in whole if event["event"] == "evaluated" and event["round"] == done]
        after = [line for event in (*again, *measured, *whole[cut:]) for line in lines.feed(event)]
        heads = [line.partition("  ")[0] for line in (*before, *after) if line.startswith("round")]
        assert heads == [f"round {number}/3" for number in range(4)], cut


def test_the_best_of_a_run_that_began_better_is_called_so() -> None:
    lines = TrainingLines()
    begun = {"event": "evaluated", "time": 1.0, "round": 0, "bits_per_byte": 4.0, "perplexity": 16.0, "best": False}
    start = {"event": "run_started", "time": 0.0, "name": "x", "mode": "local", "num_rounds": 3, "resumed_from": None}
    for event in (start, begun):
        lines.feed(event)
    lines.loss.add(3.0)
    (told,) = lines.feed({**begun, "round": 3, "bits_per_byte": 5.0, "best": True})
    assert "best so far, worse than 4.0000 before training" in told
    (told,) = lines.feed({**begun, "round": 3, "bits_per_byte": 3.9, "best": True})
    assert told.count("best so far") == 1 and "worse" not in told
