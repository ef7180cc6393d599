"""The report of several runs: their curves in one chart, and a table of what differs."""

from collections.abc import Sequence

from server.report.charts import colours_of, line_chart, table
from server.report.page import page_of
from server.report.sections import outcome
from server.run_folder.history import RunHistory


def render_comparison(runs: dict[str, RunHistory], differences: Sequence[tuple[str, ...]]) -> str:
    """Returns the comparison as one HTML document.

    Args:
        runs: By name.
        differences: Every key in which the recipes differ, and its value in every run.
    """
    colours = colours_of(runs)
    bits = {
        name: [(number, event["bits_per_byte"]) for number, event in sorted(history.evaluated.items())]
        for name, history in runs.items()
    }
    losses = {
        name: [(number, event["train_loss"]) for number, event in sorted(history.committed.items())]
        for name, history in runs.items()
    }
    known = {name: [(x, y) for x, y in points if y is not None] for name, points in bits.items()}
    trained = {name: [(x, y) for x, y in points if y is not None] for name, points in losses.items()}
    units = " or ".join(sorted({history.unit for history in runs.values()}))
    changed = table(("key", *runs), differences) if differences else "<p>The recipes are the same.</p>"
    sections = [
        ("In short", _table(runs)),
        ("Held-out bits per byte", line_chart(known, units, "bits per byte of held-out text", colours=colours)),
        ("Training loss", line_chart(trained, units, "training loss (nats a token)", colours=colours)),
        ("Differences of the recipes", changed),
    ]
    return page_of(" and ".join(runs), sections)


def _table(runs: dict[str, RunHistory]) -> str:
    rows = []
    for name, history in runs.items():
        last = history.evaluated[max(history.evaluated)]["bits_per_byte"] if history.evaluated else None
        best = history.evaluated.get(history.best_round or -1, {}).get("bits_per_byte")
        seconds = [event["seconds"] for event in history.committed.values() if event.get("seconds")]
        moved = sum(
            (event.get("bytes_down") or 0) + (event.get("bytes_up") or 0) for event in history.committed.values()
        )
        rows.append(
            (
                *(
                    name,
                    outcome(history),
                    f"{history.unit} {max(history.committed, default=0)} of {history.num_rounds}",
                ),
                *("not measured" if value is None else value for value in (last, best)),
                ", ".join(history.outvoted_rounds()) or "nobody",
                *(sum(seconds), f"{moved / 1e6:,.1f}"),
            )
        )
    head = ("run", "outcome", "done", "last bits per byte", "best", "outvoted", "seconds", "MB moved")
    return table(head, rows)
