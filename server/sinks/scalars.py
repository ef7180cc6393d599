"""The numbers of events that curves are drawn of, under names that W&B and TensorBoard share."""

from typing import Any

from server.run_folder.journal import Event

_TRAINING = ("loss", "balance_loss", "grad_norm", "learning_rate", "data_wait_share", "peak_memory_bytes")


def metrics(event: Event, unit: str = "round") -> dict[str, Any]:
    """Returns the values of one event of a federation, or of a run on one machine, which counts in steps.

    They are empty for events that are not drawn.
    """
    return _of_training(event) if unit == "step" else _of_federation(event)


def _of_training(event: Event) -> dict[str, Any]:
    if event["event"] == "evaluated":
        values = {f"held_out/{key}": event[key] for key in ("loss", "bits_per_byte", "perplexity") if key in event}
        return {"step": event["round"], **values}
    if event["event"] == "node_reply":
        values = {f"train/{key}": event[key] for key in _TRAINING if event.get(key) is not None}
        return {"step": event["round"], **values, "train/tokens_per_s": event["tokens"] / event["train_seconds"]}
    return {}


def _of_federation(event: Event) -> dict[str, Any]:
    if event["event"] == "evaluated":
        values = {f"held_out/{key}": event[key] for key in ("loss", "bits_per_byte", "perplexity") if key in event}
        for name, node in event.get("nodes", {}).items():
            values[f"held_out/{name}/bits_per_byte"] = node["bits_per_byte"]
        return {"round": event["round"], **values}
    if event["event"] == "round_committed":
        keys = ("train_loss", "seconds", "tokens_per_s", "train_share", "bytes_down", "bytes_up")
        values = {f"round/{key}": event[key] for key in keys if event.get(key) is not None}
        for outcome, count in event.get("outcomes", {}).items():
            values[f"verdicts/{outcome}"] = count
        for name, blocks in event.get("outvoted", {}).items():
            values[f"outvoted/{name}"] = blocks
        return {"round": event["round"], **values}
    if event["event"] == "node_reply" and event.get("status") == "accepted" and event.get("loss") is not None:
        name = event["node"]
        values = {f"train/{name}/{key}": event[key] for key in _TRAINING if event.get(key) is not None}
        if event.get("train_seconds"):
            values[f"train/{name}/tokens_per_s"] = event["tokens"] / event["train_seconds"]
        dead = sum(share == 0 for row in event.get("expert_share", []) for share in row)
        return {"round": event["round"], **values, f"train/{name}/dead_experts": dead}
    return {}
