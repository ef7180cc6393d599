"""Shows a run's events in Weights & Biases. Off by default; `offline` needs no key and no network."""

import logging
from pathlib import Path
from typing import Any, Literal

from server.report.sinks import SINKS
from server.run_folder.journal import Event
from trfmoe_core.config import LogConfig

_TRAINING = ("loss", "balance_loss", "grad_norm", "learning_rate", "data_wait_share", "peak_memory_bytes")

log = logging.getLogger(__name__)


class WandbSink:
    """A reader of events. Whatever goes wrong in W&B is a warning and switches the sink off; the run goes on.

    Args:
        mode: `offline` writes below `<run_dir>/wandb` for a later `wandb sync`; `online` needs a key.
        project: W&B project.
        run_dir: The run folder; its name becomes the run's name.
    """

    def __init__(self, mode: Literal["offline", "online"], project: str, run_dir: Path) -> None:
        self._mode: Literal["offline", "online"] = mode
        self._project = project
        self._run_dir = run_dir
        self._run: Any = None
        self._off = False
        self._unit = "round"

    def __call__(self, event: Event) -> None:
        """Takes in one event."""
        if self._off:
            return
        try:
            import wandb
        except ImportError as error:
            self._switch_off(error)
            return
        try:
            self._take(wandb, event)
        # What wandb, its service process and its disk are known to raise; a run must outlive all of them.
        except (wandb.Error, OSError, RuntimeError, ValueError, TypeError, AssertionError, TimeoutError) as error:
            self._switch_off(error)

    def _take(self, wandb: Any, event: Event) -> None:
        if event["event"] == "run_started":
            self._unit = "step" if event.get("mode") == "local" else "round"
            if self._run is None:
                self._run = self._open(wandb, event)
        elif self._run is not None:
            if values := metrics(event, self._unit):
                self._run.log(values)
            if event["event"] == "run_finished":
                self._run.summary.update({key: event.get(key) for key in ("outcome", "digest", "best_round")})
                self._run.finish(exit_code=0 if event["outcome"] == "completed" else 1)
                self._run = None

    def _open(self, wandb: Any, event: Event) -> Any:
        run = wandb.init(
            mode=self._mode,
            project=self._project,
            dir=str(self._run_dir),
            name=self._run_dir.name,
            id=str(event["run_id"]),
            resume="allow" if self._mode == "online" else None,
            config={key: event.get(key) for key in ("recipe_hash", "code_fingerprint", "num_rounds", "versions")},
            settings=wandb.Settings(silent=True, console="off", disable_git=True, init_timeout=30),
        )
        run.define_metric(self._unit)
        run.define_metric("*", step_metric=self._unit)
        return run

    def _switch_off(self, error: Exception) -> None:
        self._off = True
        log.warning("W&B is off for the rest of this run (%s); events.jsonl and report.html have everything", error)


def metrics(event: Event, unit: str = "round") -> dict[str, Any]:
    """Returns the W&B values of one event of a federation, or of a run on one machine, which counts in steps.

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


@SINKS.register("wandb")
def wandb_sink(log_config: LogConfig, run_dir: Path) -> WandbSink:
    """Returns the sink of a run. `log.sinks: [wandb]` without `log.wandb` works offline."""
    mode = "offline" if log_config.wandb == "off" else log_config.wandb
    return WandbSink(mode, log_config.wandb_project, run_dir)
