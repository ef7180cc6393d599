"""Asks every node that is online whether the code of this release may run on it, and does nothing else."""

import json
from pathlib import Path

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from strategies.exchange.in_flight import Arrival, Clock, InFlight
from strategies.membership.lost_requests import PING
from strategies.membership.registration import Registry
from trfmoe_core.atomic import write_bytes

ANSWER_S = 90.0
"""Seconds until a node that has not answered counts as busy: it works on one message at a time."""

NOT_ALLOWED = "has not allowed the app"
"""Part of what the program that checks the code on a node answers (`scripts/deploy/node_clientapp.py`)."""


def call_roll(grid: Grid, path: Path, clock: Clock | None = None) -> None:
    """Asks the nodes that are online and writes `{registered name: [answer, reason]}` to a JSON file.

    An answer is `allows`, `refuses`, `busy` or `failed`.

    Args:
        grid: Flower's way to the nodes.
        path: The file.
        clock: Time; tests put in their own.
    """
    registry = Registry()
    registry.look_up(grid)
    exchange = InFlight(grid=grid, clock=clock or Clock())
    found: dict[str, list[str]] = {}
    names = {}
    for node_id in grid.get_node_ids():
        names[str(node_id)] = registry.of(node_id).text or str(node_id)
        message = Message(RecordDict(), dst_node_id=node_id, message_type=f"{MessageType.QUERY}.{PING}")
        if reason := exchange.send(str(node_id), message, 0):
            found[names[str(node_id)]] = ["failed", reason]
    for arrival in exchange.receive(0, ANSWER_S, "the roll call"):
        found[names[arrival.node]] = list(_answer(arrival))
    write_bytes(path, json.dumps(found).encode(), 0o600)


def _answer(arrival: Arrival) -> tuple[str, str]:
    if arrival.reply is not None:
        return "allows", ""
    if arrival.kind == "silent":
        return "busy", arrival.reason
    return ("refuses" if NOT_ALLOWED in arrival.reason else "failed"), arrival.reason
