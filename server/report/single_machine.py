"""The report of a run on one machine."""

from html import escape

from server.report.charts import line_chart, table
from server.report.sections import (
    Row,
    Section,
    expert_load,
    origin_rows,
    outcome,
    perplexity,
    quality,
    samples,
    time_rows,
    warnings,
)
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event


def training_sections(history: RunHistory) -> list[Section]:
    """Returns the sections of the report of a run on one machine."""
    points = {
        step: reply
        for step, replies in sorted(history.replies.items())
        for reply in replies.values()
        if reply.get("loss") is not None
    }
    return [
        ("In short", _summary(history)),
        ("Held-out bits per byte", _bits_per_byte(history)),
        ("Training loss", _curve(points, "loss", "training loss (nats a token)")),
        ("Learning rate", _curve(points, "learning_rate", "learning rate")),
        ("The run", _facts(history)),
        ("Checkpoints", _checkpoints(history)),
        ("Training", _training(points)),
        ("Expert load", expert_load(history)),
        ("Text", _text(history)),
        ("Samples", samples(history)),
        ("Warnings and changed settings", warnings(history)),
    ]


def _summary(history: RunHistory) -> str:
    """How it ended and how good the model is, in sentences."""
    done = f"{max(history.committed, default=0):,} of {history.num_rounds or 0:,} steps saved"
    return (
        f"<p class=say>The run: <strong>{escape(outcome(history))}</strong>, {done}. {' '.join(quality(history))}</p>"
    )


def _facts(history: RunHistory) -> str:
    started, best = history.started, history.best_round
    begun = (started.get("origin") or {}).get("from")
    rows: list[Row] = [
        ("outcome", outcome(history)),
        ("steps saved", f"{max(history.committed, default=0)} of {history.num_rounds or 'unknown'}"),
        ("best step", "none" if best is None else str(best)),
        ("parameters", f"{started['parameters']:,}" if "parameters" in started else "unknown"),
        *([("begun with the weights of", f"{begun['run']}, {begun['unit']} {begun['round']}")] if begun else []),
        *origin_rows(history),
        *time_rows(history),
    ]
    return table((), rows)


def _bits_per_byte(history: RunHistory) -> str:
    series = {"held out": [(step, event["bits_per_byte"]) for step, event in sorted(history.evaluated.items())]}
    bigram = next((node.get("bigram_bits_per_byte") for node in history.nodes.values()), None)
    label = "bits per byte; dashed: a bigram model of the training text"
    chart = line_chart(series, "step", label, {"held out": bigram} if bigram else {})
    if not history.evaluated:
        return chart
    step, last = max(history.evaluated.items())
    row = (step, last["bits_per_byte"], perplexity(last), bigram or "not measured")
    head = ("last step measured", "bits per byte", "perplexity, a token", "a bigram model, bits per byte")
    return chart + table(head, [row])


def _curve(points: dict[int, Event], key: str, label: str) -> str:
    return line_chart({key.replace("_", " "): [(step, reply[key]) for step, reply in points.items()]}, "step", label)


def _checkpoints(history: RunHistory) -> str:
    rows = []
    for step, event in sorted(history.committed.items()):
        measured = history.evaluated.get(step, {})
        bits = measured.get("bits_per_byte", "not measured")
        trained = (event.get(key, "") for key in ("tokens_per_s", "seconds"))
        rows.append((step, event.get("train_loss", ""), bits, perplexity(measured), *trained))
    head = ("step", "train loss since the one before", "bits per byte", "perplexity", "tokens/s", "seconds of training")
    return table(head, rows) if rows else ""


def _training(points: dict[int, Event]) -> str:
    """The newest measurements."""
    if not points:
        return ""
    step, reply = max(points.items())
    seconds, waiting = reply.get("train_seconds"), reply.get("data_wait_share")
    row = (
        *(step, reply["loss"]),
        *(reply.get(key, "") for key in ("balance_loss", "grad_norm", "learning_rate")),
        reply["tokens"] / seconds if seconds else "",
        "" if waiting is None else f"{100 * waiting:.1f} %",
        f"{reply['peak_memory_bytes'] / 1e6:,.0f} MB" if reply.get("peak_memory_bytes") else "",
    )
    head = ("step", "loss", "balance loss", "gradient norm", "learning rate", "tokens/s")
    return table((*head, "time waiting for data", "peak memory"), [row])


def _text(history: RunHistory) -> str:
    rows = [
        (
            *(event.get("device", ""), event.get("train_tokens", ""), event.get("held_out_tokens", "")),
            ", ".join(f"{count} {status}" for status, count in (event.get("files") or {}).items()),
            "; ".join(event.get("notes") or []),
        )
        for event in history.nodes.values()
    ]
    return table(("device", "train tokens", "held-out tokens", "files", "notes"), rows) if rows else ""
