"""Sections that the reports of a federation and of a run on one machine share."""

import math
import shlex
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path

from server.report.charts import heat_table
from server.report.heat_map import heat_map
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event
from trfmoe_core.terminal import visible

Section = tuple[str, str]
"""Title and HTML; a section without HTML is left out."""
Row = tuple[str, object]


def outcome(history: RunHistory) -> str:
    """Returns how the run ended, or that it has not."""
    finished = history.finished
    if finished is None:
        return "not finished"
    return f"{finished['outcome']}: {finished['reason']}" if finished.get("reason") else str(finished["outcome"])


def quality(history: RunHistory) -> Iterable[str]:
    """Yields sentences that say how good the model is, against its start and against a bigram model of bytes."""
    measured = {number: event["bits_per_byte"] for number, event in history.evaluated.items()}
    if not measured or measured[max(measured)] is None:
        return
    number = max(measured)
    last, first = measured[number], measured[min(measured)]
    start = f" ({first:.2f} before training)" if min(measured) == 0 and number and first is not None else ""
    yield f"Text that was not trained on takes <strong>{last:.3f} bits per byte</strong>{start}."
    bigrams = [node["bigram_bits_per_byte"] for node in history.nodes.values() if node.get("bigram_bits_per_byte")]
    if bigrams:
        mean = sum(bigrams) / len(bigrams)
        how = "better" if last < mean else "no better yet"
        yield f"That is {how} than a model that knows pairs of bytes alone ({mean:.2f})."
    best = history.best_round
    if best is not None and best != number and measured.get(best) is not None:
        yield f"The best was {history.unit} {best} with {measured[best]:.3f}."


def next_steps(run_dir: Path) -> str:
    """Returns the commands that most people want next."""
    run = escape(shlex.quote(str(run_dir.absolute())))
    return (
        f"<p>Next: <code>trfmoe generate {run} --prompt &quot;...&quot;</code> writes a text, "
        f"<code>trfmoe export {run} FOLDER</code> makes a folder for transformers, "
        f"<code>trfmoe verify {run}</code> proves that nothing was changed.</p>"
    )


def origin_rows(history: RunHistory) -> list[Row]:
    """Returns the rows about recipe, code and versions of the last start."""
    started = history.started
    versions = ", ".join(f"{name} {version}" for name, version in (started.get("versions") or {}).items())
    return [
        ("last digest", max(history.committed.items(), default=(0, {"digest": "none yet"}))[1]["digest"]),
        ("recipe hash", started.get("recipe_hash", "unknown")),
        ("code fingerprint", started.get("code_fingerprint", "unknown")),
        ("versions", versions),
    ]


def time_rows(history: RunHistory) -> list[Row]:
    """Returns the rows about the first start, every resume and the end."""
    first, *resumes = history.starts or [{}]
    rows: list[Row] = [("started", when(first.get("time")))]
    for event in resumes:
        done = event.get("resumed_from")
        where = f"after {history.unit} {done}" if done is not None else "from the beginning, nothing was saved before"
        rows.append(("resumed", f"{when(event.get('time'))}, {where}"))
    return [*rows, ("finished", when(history.finished.get("time") if history.finished else None))]


def perplexity(measured: Event) -> float | str:
    """Returns the perplexity of an evaluation. It counts tokens, so it cannot be compared between tokenizers."""
    loss = measured.get("loss")
    return "not measured" if loss is None else math.exp(min(loss, 700.0))


def expert_load(history: RunHistory) -> str:
    """Returns every expert's share of the tokens over the rounds or steps that have it, the mean over the nodes."""
    shares = {number: share for number in sorted(history.replies) if (share := history.expert_share(number))}
    if not shares:
        return ""
    newest = max(shares)
    dead = history.dead_experts(newest)
    mean_over = ", mean over the nodes" if history.unit == "round" else ""
    note = ""
    if dead:
        note = f"<p><strong>Dead in {history.unit} {newest}, without any token: {', '.join(dead)}.</strong></p>"
    numbers = (
        f"<details><summary>Numbers of {history.unit} {newest}{mean_over}</summary>"
        f"{heat_table(shares[newest], 'layer', 'expert')}</details>"
    )
    return note + heat_map(shares, history.unit) + numbers


def samples(history: RunHistory) -> str:
    """Returns the texts that the model wrote."""
    return "".join(
        f"<p>Prompt: {escape(visible(str(event.get('prompt', ''))))}</p>"
        f"<pre>{escape(visible(str(event.get('text', ''))))}</pre>"
        for event in history.samples
    )


def warnings(history: RunHistory) -> str:
    """Returns the warnings of the run as a list."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in history.warnings)}</ul>" if history.warnings else ""


def when(seconds: float | None) -> str:
    """Returns a time in UTC; empty for None."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def spans(numbers: Iterable[int]) -> str:
    """Returns, for instance, `1, 4-12`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
