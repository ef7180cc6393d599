"""Shows a run on one machine: a bar that moves at every step, and a line for what was measured."""

import time
from collections import deque
from itertools import pairwise
from statistics import median

from scripts.terminal.console import RunDisplay, files_and_tokens, quantity
from scripts.terminal.output import Output
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event
from trfmoe_core.counts import counted
from trfmoe_core.training.trainer import StepMetrics

SMOOTHING = 0.95
"""Weight of the past in the shown loss: about the last 20 steps count."""
LINE_EVERY_S = 30.0
"""Without a bar, a line between two evaluations comes after this many seconds."""
_RECENT_STEPS = 20


class SmoothedLoss:
    """An exponential mean of the loss by steps, without the bias of its beginning (arXiv 1412.6980, section 3)."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    @property
    def value(self) -> float | None:
        """The mean; None before the first loss."""
        return self._sum / self._weight if self._weight else None

    def add(self, loss: float, steps: int = 1) -> None:
        """Takes in the mean loss of some steps."""
        past = SMOOTHING ** max(1, steps)
        self._sum, self._weight = past * self._sum + (1 - past) * loss, past * self._weight + (1 - past)


class Pace:
    """How long the rest of a run takes at the pace so far, evaluations and checkpoints included."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._now: tuple[int, float] = (0, 0.0)

    def tell(self, step: int, now: float) -> None:
        """Takes in that so many steps were made at a time in seconds."""
        self._first = self._first or (step, now)
        self._now = (step, now)

    def left_s(self, total_steps: int) -> float | None:
        """Returns the seconds that are left; None before the second step."""
        if self._first is None or self._now[0] == self._first[0]:
            return None
        steps, seconds = self._now[0] - self._first[0], self._now[1] - self._first[1]
        return (total_steps - self._now[0]) * seconds / steps


class TrainingLines:
    """Turns the events of a run on one machine into lines for people."""

    def __init__(self, history: RunHistory | None = None) -> None:
        self.history = history or RunHistory()
        self.step = max(self.history.committed, default=0)
        self.loss, self._pace = SmoothedLoss(), Pace()
        self._rate: float | None = None
        self._tokens_per_s: float | None = None
        self._step_ends: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._line_at = 0.0
        self.by_step = False
        """Whether `tell` is called after every step, so that events need not feed the loss."""

    @property
    def total(self) -> int:
        """Steps that the run is to have."""
        return self.history.num_rounds

    @property
    def done(self) -> int:
        """Steps made."""
        return self.step

    @property
    def doing(self) -> str:
        """The state of the training, in a few words."""
        if self.history.finished:
            return str(self.history.finished["outcome"])
        return "  ".join(["training", *self._measures(), *self._left()])

    def tell(self, metrics: StepMetrics, now: float) -> None:
        """Takes in one step that ended at `now`, in seconds."""
        self.by_step = True
        self.step, self._rate = metrics.step, metrics.learning_rate
        self.loss.add(metrics.loss)
        self._pace.tell(metrics.step, now)
        self._step_ends.append(now)
        ends = list(self._step_ends)
        if len(ends) > 1:  # the median, because an evaluation between two steps is no training
            self._tokens_per_s = metrics.tokens / max(1e-9, median(b - a for a, b in pairwise(ends)))

    def feed(self, event: Event) -> list[str]:
        """Takes in the next event and returns the lines that it gives, often none."""
        self.history.feed(event)
        kind = event["event"]
        if kind == "run_started":
            self._line_at = event["time"]
            return [_started(event)]
        if kind == "node_joined":
            return [f"text: {files_and_tokens(event)}; training on {event.get('device', 'unknown')}"]
        if kind == "node_reply":
            return self._trained(event)
        if kind == "evaluated":
            return [self._measured_line(event)]
        if kind == "warning":
            return [f"warning: {event['text']}"]
        if kind == "run_finished":
            return [f"run {event['outcome']}" + (f": {event['reason']}" if event.get("reason") else "")]
        return []

    def _trained(self, event: Event) -> list[str]:
        if not self.by_step:
            self.loss.add(event["loss"], event["round"] - self.step)
            self.step = event["round"]
            self._pace.tell(self.step, event["time"])
        self._rate = event["learning_rate"]
        self._tokens_per_s = event["tokens"] / max(event["train_seconds"], 1e-9)
        if event.get("measured", True) or event["time"] - self._line_at < LINE_EVERY_S:
            return []
        self._line_at = event["time"]
        return ["  ".join([self._head(event["round"]), *self._measures(), *self._left()])]

    def _measured_line(self, event: Event) -> str:
        self._line_at = event["time"]
        trained = self.loss.value is not None and event["round"] > 0
        bits = f"bits/byte {event['bits_per_byte']:.4f} (perplexity {event['perplexity']:.4g})"
        parts = [self._head(event["round"]), *(self._measures()[:1] if trained else []), bits]
        if not trained:
            return "  ".join([*parts, "before training" if event["round"] == 0 else "after resuming"])
        if event.get("best"):
            # A run that began with another's weights has measured them first, and does not keep them.
            begun = self.history.evaluated.get(0, event)["bits_per_byte"]
            worse = begun is not None and event["bits_per_byte"] > begun
            parts[-1] += f" best so far, worse than {begun:.4f} before training" if worse else " best so far"
        return "  ".join([*parts, *self._measures()[1:], *self._left()])

    def _head(self, step: int) -> str:
        return f"step {step:>{len(str(self.total))}}/{self.total}"

    def _measures(self) -> list[str]:
        parts = []
        if self.loss.value is not None:
            parts.append(f"loss {self.loss.value:.4f}")
        if self._rate is not None:
            parts.append(f"learning rate {self._rate:.3g}")
        if self._tokens_per_s:
            parts.append(f"{quantity(self._tokens_per_s)} tokens/s")
        return parts

    def _left(self) -> list[str]:
        left = self._pace.left_s(self.total)
        return [] if left is None or self.step >= self.total else [f"{duration(left)} left"]


class TrainingDisplay(RunDisplay):
    """Shows a run on one machine; its bar moves at every step."""

    def __init__(self, output: Output, lines: TrainingLines) -> None:
        super().__init__(output, lines)
        self._training = lines

    def step(self, metrics: StepMetrics) -> None:
        """Shows one step."""
        self._training.tell(metrics, time.monotonic())
        self.refresh()


def duration(seconds: float) -> str:
    """Returns a time with two units at most, such as `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {whole} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def _started(event: Event) -> str:
    parts = [counted(event["num_rounds"], "step")]
    if event.get("parameters"):
        parts.append(f"{quantity(event['parameters'])} parameters")
    if event.get("resumed_from") is not None:
        parts.append(f"resumed after step {event['resumed_from']}")
    elif begun := (event.get("origin") or {}).get("from"):
        parts.append(f"begins with the weights of {begun['run']}, {begun['unit']} {begun['round']}")
    return f"run {event['name']}: {', '.join(parts)}"
