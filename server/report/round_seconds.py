"""How the seconds of a federated round divide among their owners, from a run's journal alone."""

from statistics import fmean

from server.run_folder.journal import Event

TRAIN = "node: train"
_SLACK_S = 0.25
"""A node may take up its work this long before the coordinator has noted the reply before it."""


def round_seconds(events: list[Event]) -> list[dict[str, float]]:
    """Returns the seconds of rounds by owner, along the path of replies that the round waited for.

    Where fewer nodes work at once than take part, as in a simulation, that path leads over several replies: the last
    one, the one after which its node began, and so on. The first round is left out, because it starts processes, and so
    are rounds that a stop of the run interrupted. The values of a round add up to its length.

    Args:
        events: The whole journal.
    """
    committed = {event["round"]: event["time"] for event in events if event["event"] == "round_committed"}
    starts = [event["time"] for event in events if event["event"] == "run_started"]
    by_round: dict[int, list[Event]] = {}
    for event in events:
        if "round" in event:
            by_round.setdefault(event["round"], []).append(event)
    found = []
    for number in sorted(committed)[1:]:
        begin, end = committed.get(number - 1, 0.0), committed[number]
        replies = [event for event in by_round[number] if event["event"] == "node_reply" and event["time"] < end]
        replies = [event for event in replies if event["status"] == "accepted"]
        if replies and not any(begin < start < end for start in starts):
            found.append(_divided(by_round[number], replies, begin, end))
    return found


def mean_round_seconds(events: list[Event]) -> dict[str, float]:
    """Returns the mean of `round_seconds` by owner; empty if no round can be divided."""
    rounds = round_seconds(events)
    owners = dict.fromkeys(owner for row in rounds for owner in row)
    return {owner: fmean(row.get(owner, 0.0) for row in rounds) for owner in owners}


def train_share(seconds: dict[str, float]) -> float | None:
    """Returns the share of training in the seconds that `mean_round_seconds` gives; None if there are none."""
    total = sum(seconds.values())
    return seconds.get(TRAIN, 0.0) / total if total else None


def _divided(events: list[Event], replies: list[Event], begin: float, end: float) -> dict[str, float]:
    planned = next(event["time"] for event in events if event["event"] == "round_planned")
    verdicts = next(event["time"] for event in events if event["event"] == "verdicts")
    path = _path(replies)
    nodes: dict[str, float] = {}
    for reply in path:
        for owner, seconds in reply["spent"].items():
            nodes[f"node: {owner}"] = nodes.get(f"node: {owner}", 0.0) + seconds
    last = path[0]["time"]
    return {
        "coordinator: encode": planned - begin,
        **nodes,
        "Flower and network": last - planned - sum(nodes.values()),
        "coordinator: vote": verdicts - last,
        "coordinator: commit": end - verdicts,
    }


def _path(replies: list[Event]) -> list[Event]:
    """Returns the reply that came last, the one after which its node began, the one before that, and so on."""
    path: list[Event] = []
    before = replies
    while before:
        path.append(max(before, key=lambda reply: float(reply["time"])))
        begun = path[-1]["time"] - sum(path[-1]["spent"].values())
        before = [reply for reply in before if reply is not path[-1] and reply["time"] <= begun + _SLACK_S]
    return path
