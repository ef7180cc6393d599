"""Shows a run's events in Weights & Biases. Off by default; `offline` needs no key and no network."""

import logging
from pathlib import Path
from typing import Any, Literal

from server.run_folder.journal import Event
from server.sinks.registry import SINKS
from server.sinks.scalars import metrics
from trfmoe_core.config import LogConfig

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


@SINKS.register("wandb")
def wandb_sink(log_config: LogConfig, run_dir: Path) -> WandbSink:
    """Returns the sink of a run. `log.sinks: [wandb]` without `log.wandb` works offline."""
    mode = "offline" if log_config.wandb == "off" else log_config.wandb
    return WandbSink(mode, log_config.wandb_project, run_dir)
