"""Shows a run's events as they come: one line a round, and on a terminal a bar below them."""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import Progress, TaskID

from scripts.terminal.output import Output, one_line
from server.run_folder.history import RunHistory, suspicion
from server.run_folder.journal import Event
from server.run_folder.journal_entries import complete_entries
from trfmoe_core.blocks import TRUNK
from trfmoe_core.counts import counted


class RunLines:
    """Turns events into lines for people. A round's line comes once, when its model has been evaluated.

    Args:
        history: What has been shown before. Of it, only the last round may still get its line.
    """

    def __init__(self, history: RunHistory | None = None) -> None:
        self.history = history or RunHistory()
        last = max(self.history.committed, default=0)
        self._told = {number for number in {*self.history.committed, 0} if number < last}
        self._told |= {last} & self.history.evaluated.keys()
        self._held: dict[int, list[str]] = {}
        """Round -> lines about what came after it, which wait for its own line."""

    def feed(self, event: Event) -> list[str]:
        """Takes in the next event and returns the lines that it gives, often none.

        Raises:
            RunFolderError: the event lacks what its kind has.
        """
        with complete_entries(f"entry {event.get('seq')} of the journal"):
            return self._lines_of(event)

    def _lines_of(self, event: Event) -> list[str]:
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
            evaluates = event.get("phase") == "evaluate"
            of = "evaluation after round" if evaluates else "round"
            line = f"{of} {event['round']}: {event['node']} {event['status']}: {event['reason']}"
            return self._after(event["round"] - (0 if evaluates else 1), line)
        if kind == "evaluated":
            if event["round"] in self._told:
                return []
            self._told.add(event["round"])
            return [self.round_line(event["round"]), *self._held.pop(event["round"], [])]
        if kind == "round_committed":
            return self._unmeasured(event["round"])
        if kind == "warning":
            line = f"warning: {event['text']}"
            return self._after(event["round"] - 1, line) if event.get("round") else [line]
        if kind == "waiting":
            return [event["text"]]
        if kind in ("node_suspect", "node_quarantined"):
            return self._after(event["round"] - 1, f"warning: {suspicion(event)}")
        if kind == "run_finished":
            outcome = f"run {event['outcome']}" + (f": {event['reason']}" if event.get("reason") else "")
            return [*self._unmeasured(), outcome]
        return []

    def _after(self, before: int, line: str) -> list[str]:
        """Returns the line, or keeps it until a committed round before it has its own line."""
        if before in self.history.committed and before not in self._told:
            self._held.setdefault(before, []).append(line)
            return []
        return [line]

    def _unmeasured(self, before: int | None = None) -> list[str]:
        """Returns the lines of committed rounds that no node has measured or will measure."""
        late = [n for n in sorted(self.history.committed) if n not in self._told and (before is None or n < before)]
        self._told |= set(late)
        return [line for number in late for line in (self.round_line(number), *self._held.pop(number, []))]

    def round_line(self, number: int) -> str:
        """Returns the line of one round, from its evaluation and its commit as far as they are known."""
        width = len(str(self.history.num_rounds))
        head = f"round {number:>{width}}/{self.history.num_rounds}"
        measured = self.history.evaluated.get(number, {})
        bits, perplexity = measured.get("bits_per_byte"), measured.get("perplexity")
        parts = [head, f"bits/byte {bits:.4f}" if bits is not None else "bits/byte not measured"]
        if perplexity is not None:
            parts[-1] += f" (perplexity {perplexity:.4g})"
        committed = self.history.committed.get(number)
        if committed is None:
            return "  ".join([*parts, "before training" if number == 0 else ""]).rstrip()
        if committed.get("train_loss") is not None:
            parts.insert(1, f"loss {committed['train_loss']:.4f}")
        if verdicts := verdict_summary(self.history.verdicts.get(number, [])):
            parts.append(verdicts)
        if committed.get("tokens_per_s"):
            parts.append(f"{quantity(committed['tokens_per_s'])} tokens/s")
        if committed.get("bytes_down"):
            parts.append(f"down {size(committed['bytes_down'])} up {size(committed.get('bytes_up') or 0)}")
        if dead := self.history.dead_experts(number):
            shown = ", ".join(dead[:3]) + (", ..." if len(dead) > 3 else "")
            parts.append(f"dead experts ({len(dead)}): {shown}")
        return "  ".join([*parts, f"{committed['seconds']:.1f} s"])

    @property
    @complete_entries("an entry of the journal")
    def doing(self) -> str:
        """The present work of the run, in a few words."""
        if self.history.finished:
            return str(self.history.finished["outcome"])
        if not self.history.placements:
            return "starting the nodes"
        number = max(self.history.replies, default=0)
        replies = self.history.replies.get(number, {})
        return (
            f"round {number}: {len(replies)} of {counted(len(self.history.nodes), 'reply', 'replies')}"
            if number
            else "placed"
        )

    @property
    def done(self) -> int:
        """The last committed round."""
        return max(self.history.committed, default=0)

    @property
    def total(self) -> int:
        """Rounds that the run is to have."""
        return self.history.num_rounds


class Lines(Protocol):
    """Turns the events of a run into lines for people, and knows how far it is."""

    def feed(self, event: Event) -> list[str]:
        """Takes in the next event and returns the lines that it gives, often none."""
        ...

    @property
    def doing(self) -> str:
        """The present work of the run, in a few words."""
        ...

    @property
    def done(self) -> int:
        """Rounds or steps that were made."""
        ...

    @property
    def total(self) -> int:
        """Rounds or steps that the run is to have."""
        ...


class RunDisplay:
    """Context manager that writes a run's lines; on a terminal a live view and a bar stand below them.

    When the terminal is closed the display ends, and the run does what SIGHUP tells it.

    Args:
        output: Where to.
        lines: What is said of the events.
        view: Makes what stands above the bar; None: nothing.
    """

    def __init__(self, output: Output, lines: Lines, view: Callable[[], RenderableType] | None = None) -> None:
        self._output = output
        self._lines = lines
        self._view = view
        self._bar: Progress | None = None
        self._live: Live | None = None
        self._task = TaskID(0)
        self._closed = False
        if output.console.is_terminal:
            self._bar = output.bar()
            if view is not None:
                self._live = Live(console=output.console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._bar is not None:
            (self._live or self._bar).start()
            self._task = self._bar.add_task(one_line(self._lines.doing), total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with self._while_open():
                (self._live or self._bar).stop()

    def show(self, event: Event) -> None:
        """Shows one event."""
        with self._while_open():
            for line in self._lines.feed(event):
                if not self._closed:
                    self._output.line(one_line(line))  # names and reasons come from nodes
            self.refresh()

    def refresh(self) -> None:
        """Brings the bar up to date."""
        if self._bar is not None and not self._closed:
            lines = self._lines
            self._bar.update(
                self._task, description=one_line(lines.doing), completed=lines.done, total=lines.total or None
            )
            if self._live is not None and self._view is not None:
                self._live.update(Group(self._view(), self._bar))

    def watching(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Returns `stop`, which from now on brings the view up to date too, at most once a second.

        For a view that changes without an event, such as the steps of a node.
        """
        last_s = time.monotonic()

        def ask() -> bool:
            nonlocal last_s
            if self._live is not None and time.monotonic() - last_s >= 1.0:
                last_s = time.monotonic()
                with self._while_open():
                    self.refresh()
            return stop()

        return ask

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO:  # what a closed terminal answers
                raise
            self._closed = True


def verdict_summary(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Returns, for instance, `32 experts + trunk majority; outvoted: carol (32 experts + trunk)`."""
    outcomes: dict[str, list[str]] = {}
    outvoted: dict[str, list[str]] = {}
    for verdict in verdicts:
        outcomes.setdefault(verdict["outcome"], []).append(verdict["block"])
        for name in verdict.get("outvoted", []):
            outvoted.setdefault(name, []).append(verdict["block"])
    by_count = sorted(outcomes.items(), key=lambda item: (-len(item[1]), item[0]))
    text = ", ".join(f"{counted_blocks(blocks)} {outcome}" for outcome, blocks in by_count)
    lost = ", ".join(f"{name} ({counted_blocks(blocks)})" for name, blocks in sorted(outvoted.items()))
    return f"{text}; outvoted: {lost}" if lost else text


def counted_blocks(blocks: Sequence[str]) -> str:
    """Returns, for instance, `32 experts + trunk`."""
    experts = sum(block != TRUNK for block in blocks)
    shown = counted(experts, "expert") if experts else ""
    return " + ".join(part for part in (shown, TRUNK if len(blocks) > experts else "") if part)


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
    parts = [counted(event["num_rounds"], "round")]
    if event.get("vote"):
        parts.append(f"vote {event['vote']}")
    if event.get("parameters"):
        parts.append(f"{quantity(event['parameters'])} parameters")
    if event.get("resumed_from") is not None:
        parts.append(f"resumed after round {event['resumed_from']}")
    return f"run {event['name']}: {', '.join(parts)}"


def _joined(event: Event) -> str:
    return f"node {event['node']} joined on {event.get('device', 'unknown')}: {files_and_tokens(event)}"


def files_and_tokens(event: Event) -> str:
    """Returns what a `node_joined` event says of the text."""
    files = ", ".join(f"{count} {status}" for status, count in (event.get("files") or {}).items())
    parts = [f"{quantity(event['train_tokens'])} train tokens", f"{quantity(event['held_out_tokens'])} held out"]
    if files:
        parts.append(f"files: {files}")
    if event.get("bigram_bits_per_byte"):
        parts.append(f"a bigram model needs {event['bigram_bits_per_byte']:.4f} bits/byte")
    return "; ".join(parts)


def _placed(event: Event) -> str:
    return (
        f"placement {event['epoch']}: every expert on {event['replication']} nodes, {event['load_min']} to "
        f"{event['load_max']} a node, two nodes share at most {event['pair_max']}"
    )
