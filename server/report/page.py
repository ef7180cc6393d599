"""Writes a run's report: one HTML file made from the journal alone, readable in light and dark, without scripts."""

import math
import time
from html import escape
from pathlib import Path
from typing import Any

from server.report.charts import heat_table, line_chart, table
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event, read_events
from trfmoe_core.atomic import write_text
from trfmoe_core.terminal import visible

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 20%, Canvas); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .85rem; } .scroll { overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .2rem .5rem; text-align: left; white-space: nowrap; }
td.num { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: CanvasText; } .grid { stroke: var(--line); }
figure { margin: 1rem 0; } figcaption span { margin-left: 1rem; white-space: nowrap; }
figcaption i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
.agreed { background: rgba(89,161,79,.28); } .outvoted { background: rgba(225,87,89,.45); }
.missing { background: rgba(140,140,140,.35); } .invalid { background: rgba(242,142,43,.45); }
pre { white-space: pre-wrap; border: 1px solid var(--line); padding: .7rem; }
"""


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run folder, finished or not, and returns its path."""
    history = RunHistory(read_events(run_dir / "events.jsonl"))
    path = run_dir / "report.html"
    write_text(path, render(history, run_dir.name))
    return path


def render(history: RunHistory, title: str) -> str:
    """Returns the report as one HTML document. All text from nodes is escaped."""
    sections = [
        ("The run", _facts(history)),
        ("Held-out bits per byte", _bits_per_byte(history)),
        ("Training loss", _losses(history)),
        ("Verdicts by node and round", _verdicts(history)),
        ("Rounds" if history.unit == "round" else "Checkpoints", _rounds(history)),
        ("Training on the nodes", _training(history)),
        ("Expert load", _expert_load(history)),
        ("Placement", _placement(history)),
        ("Data of the nodes", _data(history)),
        ("Samples", _samples(history)),
        ("Warnings", _warnings(history)),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _facts(history: RunHistory) -> str:
    started, finished = history.started, history.finished
    outcome = f"{finished['outcome']}" if finished else "not finished"
    if finished and finished.get("reason"):
        outcome += f": {finished['reason']}"
    versions = ", ".join(f"{name} {version}" for name, version in (started.get("versions") or {}).items())
    rows: list[tuple[str, object]] = [
        ("outcome", outcome),
        (f"{history.unit}s committed", f"{_done(history)} of {history.num_rounds or 'unknown'}"),
        (f"best {history.unit}", "none" if history.best_round is None else str(history.best_round)),
        ("mode", started.get("mode", "unknown")),
        ("vote", started.get("vote", "none")),
        ("parameters", f"{started['parameters']:,}" if "parameters" in started else "unknown"),
        ("nodes", ", ".join(sorted(history.nodes)) or "none yet"),
        (
            f"resumed from {history.unit}",
            "not resumed" if started.get("resumed_from") is None else str(started["resumed_from"]),
        ),
        ("last digest", max(history.committed.items(), default=(0, {"digest": "none yet"}))[1]["digest"]),
        ("recipe hash", started.get("recipe_hash", "unknown")),
        ("code fingerprint", started.get("code_fingerprint", "unknown")),
        ("versions", versions),
        ("started", _when(started.get("time"))),
        ("finished", _when(finished.get("time") if finished else None)),
    ]
    told = history.drill_rounds()
    for name, numbers in history.outvoted_rounds().items():
        drill = f" (told to misbehave, as a drill, in rounds {_spans(told[name])})" if name in told else ""
        rows.insert(2, (f"outvoted: {name}", f"in rounds {_spans(numbers)}{drill}"))
    claims = [(f"claims a drill: {name}", f"in rounds {_spans(claimed)}") for name, claimed in history.claims().items()]
    refused: list[tuple[str, object]] = [
        (f"refused: {node}", reason) for node, reason in sorted(history.refused.items())
    ]
    return table((), [*rows, *claims, *refused])


def _done(history: RunHistory) -> int:
    """How many rounds or steps are safe."""
    return max(history.committed, default=0) if history.unit == "step" else len(history.committed)


def _spans(numbers: list[int]) -> str:
    """Returns, for instance, `1, 4-12`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _bits_per_byte(history: RunHistory) -> str:
    series: dict[str, list[tuple[float, float]]] = {"median": []}
    for name in sorted(history.nodes):
        series[name] = []
    for number, event in sorted(history.evaluated.items()):
        series["median"].append((number, event["bits_per_byte"]))
        for name, node in sorted(event.get("nodes", {}).items()):
            series.setdefault(name, []).append((number, node["bits_per_byte"]))
    bigrams = {
        name: node["bigram_bits_per_byte"] for name, node in history.nodes.items() if node.get("bigram_bits_per_byte")
    }
    last: dict[str, Any] = max(history.evaluated.items(), default=(0, {}))[1].get("nodes", {})
    rows = [
        (
            *(name, last.get(name, {}).get("bits_per_byte", "not measured"), _perplexity(last.get(name, {}))),
            bigrams.get(name, "not measured"),
        )
        for name in sorted(history.nodes)
    ]
    chart = line_chart(series, history.unit, "bits per byte; dashed: the node's byte bigram", bigrams)
    head = ("node", f"bits per byte, last {history.unit}", "perplexity, a token", "byte bigram, bits per byte")
    return chart + table(head, rows)


def _perplexity(measured: Event) -> float | str:
    """Of the tokenizer's own tokens, so not comparable between tokenizers, as bits per byte are."""
    loss = measured.get("loss")
    return "not measured" if loss is None else math.exp(min(loss, 700.0))


def _losses(history: RunHistory) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for number, replies in sorted(history.replies.items()):
        for name, reply in sorted(replies.items()):
            if reply.get("loss") is not None:
                series.setdefault(name, []).append((number, reply["loss"]))
    return line_chart(series, history.unit, "training loss (nats a token)")


def _verdicts(history: RunHistory) -> str:
    if not history.verdicts:
        return ""
    rounds = sorted(history.verdicts)
    head = "".join(f"<th>{number}</th>" for number in rounds)
    body = []
    for name in sorted({*history.nodes, *_voters(history)}):
        cells = "".join(_verdict_cell(history, number, name) for number in rounds)
        body.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    note = (
        "<p>In how many blocks a node was outvoted (o), missing (m) or invalid (i); ok where it agreed on all. "
        "A star: the node was told to misbehave, as a drill.</p>"
    )
    return f"{note}<div class=scroll><table><tr><th>round</th>{head}</tr>{''.join(body)}</table></div>"


def _verdict_cell(history: RunHistory, number: int, name: str) -> str:
    counts = {
        kind: sum(name in verdict.get(kind, []) for verdict in history.verdicts[number])
        for kind in ("outvoted", "invalid", "missing")
    }
    drill = "*" if history.replies.get(number, {}).get(name, {}).get("drill") else ""
    kind = next((kind for kind, count in counts.items() if count), None)
    if kind is None:
        return f'<td class="agreed">ok{drill}</td>'
    text = " ".join(f"{count}{kind[0]}" for kind, count in counts.items() if count)
    return f'<td class="{kind}">{text}{drill}</td>'


def _voters(history: RunHistory) -> set[str]:
    kinds = ("accepted", "outvoted", "missing", "invalid")
    return {
        name
        for verdicts in history.verdicts.values()
        for verdict in verdicts
        for kind in kinds
        for name in verdict.get(kind, [])
    }


def _rounds(history: RunHistory) -> str:
    rows = []
    for number, event in sorted(history.committed.items()):
        verdicts = ", ".join(f"{count} {outcome}" for outcome, count in event.get("outcomes", {}).items())
        measured = history.evaluated.get(number, {})
        bits, perplexity = measured.get("bits_per_byte", "not measured"), _perplexity(measured)
        share = event.get("train_share")
        rows.append(
            (
                *(number, event.get("train_loss", ""), bits, perplexity, verdicts, event.get("tokens_per_s", "")),
                "" if share is None else f"{100 * share:.0f} %",
                *(event.get(key, "") for key in ("bytes_down", "bytes_up", "seconds")),
            )
        )
    head = (history.unit, "train loss", "bits per byte", "perplexity", "verdicts", "tokens/s", "time spent training")
    return table((*head, "bytes down", "bytes up", "seconds"), rows) if rows else ""


def _training(history: RunHistory) -> str:
    """The measurements of the newest training of every node."""
    rows = []
    for name in sorted(history.nodes):
        numbers = [
            number for number, replies in history.replies.items() if replies.get(name, {}).get("loss") is not None
        ]
        if not numbers:
            continue
        reply = history.replies[max(numbers)][name]
        seconds, waiting = reply.get("train_seconds"), reply.get("data_wait_share")
        rows.append(
            (
                *(name, max(numbers), reply["loss"]),
                *(reply.get(key, "") for key in ("balance_loss", "grad_norm", "learning_rate")),
                reply["tokens"] / seconds if seconds else "",
                "" if waiting is None else f"{100 * waiting:.1f} %",
                f"{reply['peak_memory_bytes'] / 1e6:,.0f} MB" if reply.get("peak_memory_bytes") else "",
            )
        )
    head = ("node", history.unit, "loss", "balance loss", "gradient norm", "learning rate", "tokens/s")
    return table((*head, "time waiting for data", "peak memory"), rows) if rows else ""


def _expert_load(history: RunHistory) -> str:
    """Mean over the nodes' accepted replies of the newest round that has any."""
    for number in sorted(history.replies, reverse=True):
        shares = [reply["expert_share"] for reply in history.replies[number].values() if reply.get("expert_share")]
        if shares:
            layers = range(len(shares[0]))
            mean = [
                [sum(share[layer][e] for share in shares) / len(shares) for e in range(len(shares[0][layer]))]
                for layer in layers
            ]
            dead = history.dead_experts(number)
            note = (
                f"<p>Share of each layer's token slots by expert in {history.unit} {number}, mean over the nodes.</p>"
            )
            if dead:
                note += f"<p><strong>Dead experts, which received no token: {', '.join(dead)}.</strong></p>"
            return note + heat_table(mean, "layer", "expert")
    return ""


def _placement(history: RunHistory) -> str:
    if not history.placements:
        return ""
    plan = history.placements[-1]
    note = (
        f"<p>Epoch {plan['epoch']} ({escape(str(plan.get('reason', '')))}): {plan['load_min']} to {plan['load_max']} "
        f"blocks a node; two nodes share at most {plan['pair_max']}, which is what a pair could capture.</p>"
    )
    rows = [(block, ", ".join(names)) for block, names in plan.get("holders", {}).items()]
    return f"{note}<details><summary>Holders of every block</summary>{table(('block', 'nodes'), rows)}</details>"


def _data(history: RunHistory) -> str:
    rows = []
    for name, node in sorted(history.nodes.items()):
        files = ", ".join(f"{count} {status}" for status, count in (node.get("files") or {}).items())
        rows.append(
            (
                *(name, node.get("zone") or "", node.get("device", "")),
                *(node.get("train_tokens", ""), node.get("held_out_tokens", "")),
                *(files, "; ".join(node.get("notes") or [])),
            )
        )
    return table(("node", "zone", "device", "train tokens", "held-out tokens", "files", "notes"), rows) if rows else ""


def _samples(history: RunHistory) -> str:
    return "".join(
        f"<p>Prompt: {escape(visible(str(event.get('prompt', ''))))}</p>"
        f"<pre>{escape(visible(str(event.get('text', ''))))}</pre>"
        for event in history.samples
    )


def _warnings(history: RunHistory) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in history.warnings)}</ul>" if history.warnings else ""


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
