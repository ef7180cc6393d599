"""Shows a run's events as they come: one line a round, and on a terminal a bar below them."""

from types import TracebackType
from typing import Self

from rich.progress import Progress, TaskID

from scripts.terminal.output import Output, one_line
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event


class RunLines:
    """Turns events into lines for people. A round's line comes when its model has been evaluated."""

    def __init__(self, history: RunHistory | None = None) -> None:
        self.history = history or RunHistory()
        self._told = set(self.history.committed)

    def feed(self, event: Event) -> list[str]:
        """Takes in the next event and returns the lines that it gives, often none."""
        self.history.feed(event)
        kind = event["event"]
        if kind == "run_started":
            return [_started(event)]
        if kind == "node_joined":
            return [_joined(event)]
        if kind == "node_refused":
            return [f"node {event['node']} refused: {event['reason']}"]
        if kind == "placement":
            return [_placed(event)]
        if kind == "node_reply" and event["status"] != "accepted":
            return [f"{self.history.unit} {event['round']}: {event['node']} {event['status']}: {event['reason']}"]
        if kind == "evaluated":
            self._told.add(event["round"])
            return [self.round_line(event["round"])]
        if kind == "round_committed":
            return self._unmeasured(event["round"])
        if kind == "warning":
            return [f"warning: {event['text']}"]
        if kind == "run_finished":
            outcome = f"run {event['outcome']}" + (f": {event['reason']}" if event.get("reason") else "")
            return [*self._unmeasured(), outcome]
        return []

    def _unmeasured(self, before: int | None = None) -> list[str]:
        """Returns the lines of committed rounds that no node has measured or will measure."""
        if self.history.unit == "step":
            return []
        late = [n for n in sorted(self.history.committed) if n not in self._told and (before is None or n < before)]
        self._told |= set(late)
        return [self.round_line(number) for number in late]

    def round_line(self, number: int) -> str:
        """Returns the line of one round or step, from its evaluation and its commit as far as they are known."""
        width = len(str(self.history.num_rounds))
        head = f"{self.history.unit} {number:>{width}}/{self.history.num_rounds}"
        measured = self.history.evaluated.get(number, {})
        bits, perplexity = measured.get("bits_per_byte"), measured.get("perplexity")
        parts = [head, f"bits/byte {bits:.4f}" if bits is not None else "bits/byte not measured"]
        if perplexity is not None:
            parts[-1] += f" (perplexity {perplexity:.4g})"
        committed = self.history.committed.get(number) or self._trained_alone(number)
        if committed is None:
            return "  ".join([*parts, "before training" if number == 0 else ""]).rstrip()
        if committed.get("train_loss") is not None:
            parts.insert(1, f"loss {committed['train_loss']:.4f}")
        if verdicts := verdict_summary(committed):
            parts.append(verdicts)
        if committed.get("tokens_per_s"):
            parts.append(f"{quantity(committed['tokens_per_s'])} tokens/s")
        if committed.get("bytes_down"):
            parts.append(f"down {size(committed['bytes_down'])} up {size(committed.get('bytes_up') or 0)}")
        if dead := self.history.dead_experts(number):
            shown = ", ".join(dead[:3]) + (", ..." if len(dead) > 3 else "")
            parts.append(f"dead experts ({len(dead)}): {shown}")
        return "  ".join([*parts, f"{committed['seconds']:.1f} s"])

    def _trained_alone(self, number: int) -> Event | None:
        """Steps that were evaluated and not saved."""
        reply = next(iter(self.history.replies.get(number, {}).values()), None) if self.history.unit == "step" else None
        if reply is None:
            return None
        seconds = reply["train_seconds"]
        return {"train_loss": reply["loss"], "seconds": seconds, "tokens_per_s": reply["tokens"] / max(seconds, 1e-9)}

    @property
    def doing(self) -> str:
        """The present work of the run, in a few words."""
        if self.history.finished:
            return str(self.history.finished["outcome"])
        if self.history.unit == "step":
            return "training"
        if not self.history.placements:
            return "starting the nodes"
        number = max(self.history.replies, default=0)
        replies = self.history.replies.get(number, {})
        return f"round {number}: {len(replies)} of {len(self.history.nodes)} replies" if number else "placed"


class RunDisplay:
    """Context manager that writes a run's lines, with a live bar where the output is a terminal."""

    def __init__(self, output: Output, lines: RunLines) -> None:
        self._output = output
        self._lines = lines
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if output.console.is_terminal:
            self._bar = output.bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(one_line(self._lines.doing), total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Shows one event."""
        for line in self._lines.feed(event):
            self._output.line(one_line(line))  # names and reasons come from nodes
        if self._bar is not None:
            history = self._lines.history
            done = max(history.committed, default=0)
            self._bar.update(
                self._task, description=one_line(self._lines.doing), completed=done, total=history.num_rounds or None
            )


def verdict_summary(committed: Event) -> str:
    """Returns, for instance, `32 majority 1 unanimous; outvoted: carol(33)`."""
    outcomes = sorted((committed.get("outcomes") or {}).items(), key=lambda item: (-item[1], item[0]))
    text = " ".join(f"{count} {outcome}" for outcome, count in outcomes)
    outvoted = ", ".join(f"{name}({blocks})" for name, blocks in sorted((committed.get("outvoted") or {}).items()))
    return f"{text}; outvoted: {outvoted}" if outvoted else text


def quantity(value: float) -> str:
    """Returns a number with three digits and k, M or G."""
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def size(num_bytes: float) -> str:
    """Returns a number of bytes with its decimal unit."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


def _started(event: Event) -> str:
    unit = "step" if event.get("mode") == "local" else "round"
    parts = [f"{event['num_rounds']} {unit}s"]
    if event.get("vote"):
        parts.append(f"vote {event['vote']}")
    if event.get("parameters"):
        parts.append(f"{quantity(event['parameters'])} parameters")
    if event.get("resumed_from") is not None:
        parts.append(f"resumed after {unit} {event['resumed_from']}")
    return f"run {event['name']}: {', '.join(parts)}"


def _joined(event: Event) -> str:
    files = ", ".join(f"{count} {status}" for status, count in (event.get("files") or {}).items())
    parts = [f"{quantity(event['train_tokens'])} train tokens", f"{quantity(event['held_out_tokens'])} held out"]
    if files:
        parts.append(f"files: {files}")
    if event.get("bigram_bits_per_byte"):
        parts.append(f"byte bigram {event['bigram_bits_per_byte']:.4f} bits/byte")
    return f"node {event['node']} joined on {event.get('device', 'unknown')}: {'; '.join(parts)}"


def _placed(event: Event) -> str:
    return (
        f"placement {event['epoch']}: every expert on {event['replication']} nodes, {event['load_min']} to "
        f"{event['load_max']} a node, two nodes share at most {event['pair_max']}"
    )
