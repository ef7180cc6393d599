"""The report of a federation: votes, placement, nodes and rounds."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from server.report.charts import colours_of, line_chart, table
from server.report.sections import (
    Row,
    Section,
    expert_load,
    origin_rows,
    outcome,
    perplexity,
    quality,
    samples,
    spans,
    time_rows,
    warnings,
)
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event
from server.run_folder.ledger import below, complaint, ledger
from trfmoe_core.blocks import TRUNK
from trfmoe_core.counts import counted

DECIDED = ("unanimous", "majority")
"""Outcomes for which replicas agreed."""
SHOWN = ("outvoted", "invalid", "missing", "kept", "median")
"""What became of a node's blocks besides an agreement, in the order of weight."""
SHORT = {"outvoted": "out", "invalid": "bad", "missing": "none", "kept": "kept", "median": "med"}
"""The same in cells, so that a dozen rounds fit on a screen."""
ROUNDS_A_TABLE = 20
"""Of the verdicts, so many rounds stand side by side; on paper, more would be cut off."""


def federation_sections(history: RunHistory) -> list[Section]:
    """Returns the sections of a federation's report."""
    return [
        ("In short", _summary(history)),
        ("Held-out bits per byte", _bits_per_byte(history)),
        ("What every node gave, and what of it counted", _ledger(history)),
        ("The run", _facts(history)),
        ("Training loss", _losses(history)),
        ("Verdicts by node and round", _verdicts(history)),
        ("Rounds", _rounds(history)),
        ("Training on the nodes", _training(history)),
        ("Expert load", expert_load(history)),
        ("Placement", _placement(history)),
        ("Data of the nodes", _data(history)),
        ("Samples", samples(history)),
        ("Warnings", warnings(history)),
    ]


def _summary(history: RunHistory) -> str:
    """How it ended, how good the model is, who was outvoted, and whose part fell short, in sentences."""
    done, planned = len(history.committed), history.num_rounds or "?"
    said = [f"The run: <strong>{escape(outcome(history))}</strong>, {done} of {planned} rounds.", *quality(history)]
    told, little = history.drill_rounds(), history.little_text()
    for name, numbers in history.outvoted_rounds().items():
        drill = ", as it was told to for a drill" if set(numbers) <= set(told.get(name, ())) else ""
        said.append(f"<strong>{escape(name)}</strong> was outvoted in rounds {spans(numbers)}{drill}.")
        if name in little:
            said.append(f"{escape(little[name])}.")
    if history.committed and not history.outvoted_rounds():
        said.append("Nobody was outvoted.")
    short = below(ledger(history), history.min_share)
    warned = "".join(f"<li class=short>{escape(complaint(name, account))}</li>" for name, account in short.items())
    return f"<p class=say>{' '.join(said)}</p>" + (f"<ul>{warned}</ul>" if warned else "")


def _ledger(history: RunHistory) -> str:
    accounts = ledger(history)
    if not accounts:
        return ""
    rows = [
        (
            *(name, account.tokens, account.planned, account.counted, f"{100 * account.share:.0f} %"),
            *(account.outvoted, account.missing, account.invalid, account.kept),
        )
        for name, account in accounts.items()
    ]
    note = (
        "<p>A vote is one block in one round. Planned are the votes that the placement gave a node. Of a vote that had "
        "no result the block stayed as it was.</p>"
    )
    head = ("node", "tokens trained", "votes planned", "counted", "share", "outvoted", "not in time", "refused")
    return note + table((*head, "without result"), rows)


def _facts(history: RunHistory) -> str:
    started = history.started
    rows: list[Row] = [
        ("outcome", outcome(history)),
        ("rounds committed", f"{len(history.committed)} of {history.num_rounds or 'unknown'}"),
        ("best round", "none" if history.best_round is None else str(history.best_round)),
        ("mode", started.get("mode", "unknown")),
        ("vote", started.get("vote", "none")),
        ("parameters", f"{started['parameters']:,}" if "parameters" in started else "unknown"),
        ("nodes", ", ".join(sorted(history.nodes)) or "none yet"),
        *origin_rows(history),
        *time_rows(history),
    ]
    told = history.drill_rounds()
    for name, numbers in history.outvoted_rounds().items():
        drill = f" (told to misbehave, as a drill, in rounds {spans(told[name])})" if name in told else ""
        rows.insert(2, (f"outvoted: {name}", f"in rounds {spans(numbers)}{drill}"))
    claims = [(f"claims a drill: {name}", f"in rounds {spans(claimed)}") for name, claimed in history.claims().items()]
    refused: list[Row] = [(f"refused: {node}", reason) for node, reason in sorted(history.refused.items())]
    return table((), [*rows, *claims, *refused])


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
            *(name, last.get(name, {}).get("bits_per_byte", "not measured"), perplexity(last.get(name, {}))),
            bigrams.get(name, "not measured"),
        )
        for name in sorted(history.nodes)
    ]
    label = "bits per byte of text that was not trained on; dashed: a bigram model of the node's own bytes"
    chart = line_chart(series, "round", label, bigrams, colours_of(history.nodes))
    head = ("node", "bits per byte, last round", "perplexity, a token", "a bigram model, bits per byte")
    return chart + table(head, rows)


def _losses(history: RunHistory) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for number, replies in sorted(history.replies.items()):
        for name, reply in sorted(replies.items()):
            if reply.get("loss") is not None:
                series.setdefault(name, []).append((number, reply["loss"]))
    return line_chart(series, "round", "training loss (nats a token)", colours=colours_of(history.nodes))


def _verdicts(history: RunHistory) -> str:
    if not history.verdicts:
        return ""
    rounds = sorted(history.verdicts)
    tables = [_verdict_table(history, rounds[at : at + ROUNDS_A_TABLE]) for at in range(0, len(rounds), ROUNDS_A_TABLE)]
    note = (
        "<p>In how many blocks a node was outvoted (out), or sent nothing (none) or something that was refused (bad). "
        "Kept: too few agreed, and the block stayed as it was. Med: all stood alone, and the median of all counted. "
        "ok: it agreed with a majority on all. A star: the node was told to misbehave, as a drill.</p>"
    )
    return note + "<br>".join(tables)


def _verdict_table(history: RunHistory, rounds: Sequence[int]) -> str:
    head = "".join(f"<th>{number}</th>" for number in rounds)
    body = []
    for name in sorted({*history.nodes, *_voters(history)}):
        cells = "".join(_verdict_cell(history, number, name) for number in rounds)
        body.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return f"<div class=scroll><table><tr><th>round</th>{head}</tr>{''.join(body)}</table></div>"


def _verdict_cell(history: RunHistory, number: int, name: str) -> str:
    verdicts = history.verdicts[number]
    counts = dict.fromkeys(SHOWN, 0)
    holders = history.holders(number)
    for verdict in verdicts:
        if (kind := _fate(verdict, name, holders.get(verdict["block"]))) in counts:
            counts[kind] += 1
    drill = "*" if history.replies.get(number, {}).get(name, {}).get("drill") else ""
    weightiest = next((kind for kind, count in counts.items() if count), None)
    if weightiest is None:
        agreed = any(name in verdict.get("accepted", []) for verdict in verdicts)
        return f'<td class="agreed">ok{drill}</td>' if agreed else f"<td>{drill}</td>"
    full = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    short = " ".join(f"{count} {SHORT[kind]}" for kind, count in counts.items() if count)
    return f'<td class="{weightiest}" title="{full}">{short}{drill}</td>'


def _fate(verdict: dict[str, Any], name: str, holders: list[str] | None) -> str:
    """Returns what became of a node's update of a block: one of `SHOWN`, or empty if it agreed or had none."""
    for kind in ("outvoted", "invalid", "missing"):
        if name in verdict.get(kind, []):
            return kind
    result = verdict["outcome"]
    if result in DECIDED or (holders is not None and name not in holders):
        return ""
    return str(result) if name in verdict.get("accepted", []) or not verdict.get("accepted") else ""


def _voters(history: RunHistory) -> set[str]:
    kinds = ("accepted", "outvoted", "missing", "invalid")
    return {
        name
        for verdicts in history.verdicts.values()
        for verdict in verdicts
        for kind in kinds
        for name in verdict.get(kind, [])
    }


def _verdict_counts(verdicts: Sequence[Mapping[str, Any]], committed: Event) -> str:
    """Returns, for instance, `32 experts + trunk unanimous`; of a round without its verdicts, the numbers of blocks."""
    if not verdicts:
        found = committed.get("outcomes", {}).items()
        return ", ".join(f"{counted(number, 'block')} {kind}" for kind, number in found)
    by_outcome: dict[str, list[str]] = {}
    for verdict in verdicts:
        by_outcome.setdefault(verdict["outcome"], []).append(verdict["block"])
    parts = []
    for kind, blocks in sorted(by_outcome.items(), key=lambda item: (-len(item[1]), item[0])):
        experts = len(blocks) - (TRUNK in blocks)
        named = [*([counted(experts, "expert")] if experts else []), *([TRUNK] if TRUNK in blocks else [])]
        parts.append(f"{' + '.join(named)} {kind}")
    return ", ".join(parts)


def _rounds(history: RunHistory) -> str:
    rows = []
    for number, event in sorted(history.committed.items()):
        verdicts = _verdict_counts(history.verdicts.get(number, []), event)
        measured = history.evaluated.get(number, {})
        bits, perplexed = measured.get("bits_per_byte", "not measured"), perplexity(measured)
        share = event.get("train_share")
        rows.append(
            (
                *(number, event.get("train_loss", ""), bits, perplexed, verdicts, event.get("tokens_per_s", "")),
                "" if share is None else f"{100 * share:.0f} %",
                *(f"{event[key] / 1e6:,.1f}" if key in event else "" for key in ("bytes_down", "bytes_up")),
                event.get("seconds", ""),
            )
        )
    head = ("round", "train loss", "bits per byte", "perplexity", "blocks by verdict", "tokens/s", "time training")
    return table((*head, "MB down", "MB up", "seconds"), rows) if rows else ""


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
    head = ("node", "round", "loss", "balance loss", "gradient norm", "learning rate", "tokens/s")
    return table((*head, "time waiting for data", "peak memory"), rows) if rows else ""


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
