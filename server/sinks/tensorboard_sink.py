"""Writes a run's curves for TensorBoard, into `tensorboard/` of the run folder. Off by default."""

import logging
import math
from pathlib import Path
from typing import Any

from server.run_folder.journal import Event
from server.sinks.registry import SINKS
from server.sinks.scalars import metrics
from trfmoe_core.config import LogConfig

FOLDER = "tensorboard"

log = logging.getLogger(__name__)


class TensorboardSink:
    """A reader of events. Whatever goes wrong is a warning and switches the sink off; the run goes on.

    Args:
        run_dir: The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        self._writer: Any = None
        self._off = False
        self._unit = "round"

    def __call__(self, event: Event) -> None:
        """Takes in one event."""
        if self._off:
            return
        try:
            self._take(event)
        # What the package and its disk are known to raise; a run must outlive all of them.
        except (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            self._off = True
            log.warning("TensorBoard is off for the rest of this run (%s); events.jsonl has everything", error)

    def _take(self, event: Event) -> None:
        if event["event"] == "run_started":
            self._unit = "step" if event.get("mode") == "local" else "round"
            self._open(event.get("resumed_from"))
        elif self._writer is not None:
            values = metrics(event, self._unit)
            number = values.pop(self._unit, 0)
            for name, value in values.items():
                if value is not None and math.isfinite(value):
                    self._writer.add_scalar(name, value, number, walltime=event["time"])
            if event["event"] in ("evaluated", "round_committed"):
                self._writer.flush()
            if event["event"] == "run_finished":
                self._writer.close()
                self._writer = None

    def _open(self, resumed_from: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            # Hides the curves of rounds that were interrupted, which are repeated now.
            again = None if resumed_from is None else resumed_from + 1
            self._writer = SummaryWriter(str(self._folder), purge_step=again)


@SINKS.register("tensorboard")
def tensorboard_sink(settings: LogConfig, run_dir: Path) -> TensorboardSink:
    """Returns the sink of a run. `log.sinks: [tensorboard]` is the same as `log.tensorboard: true`."""
    return TensorboardSink(run_dir)
