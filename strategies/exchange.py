"""Sends one message a node and takes the replies one at a time, with a deadline of its own.

Flower reports a lost node late and under the SuperLink's id, and some never. So replies are matched by the message
they answer, and the clock here decides when waiting ends.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time as the strategy sees it; tests put in their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(kw_only=True)
class Exchange:
    """One message to each of several nodes, and their replies as they come."""

    grid: Grid
    deadline_s: float
    clock: Clock = field(default_factory=Clock)
    poll_s: float = 0.2

    def run(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message | None, str]]:
        """Yields (node, reply, reason) for every node once: the reply, or None and why there is none.

        The grid keeps no copy of a reply that was yielded, so a caller that drops it frees its memory.
        """
        waiting: dict[str, str] = {}
        for node, message in messages.items():
            ids = [message_id for message_id in self.grid.push_messages([message]) if message_id]
            if ids:
                waiting[ids[0]] = node
            else:
                yield node, None, "Flower refused the message: the node is not registered or not online"
        end = self.clock.now() + self.deadline_s
        while waiting:
            progress = False
            for message_id in list(waiting):
                for reply in self.grid.pull_messages([message_id]):
                    if reply.metadata.reply_to_message_id != message_id or message_id not in waiting:
                        continue
                    progress = True
                    node = waiting.pop(message_id)
                    if reply.has_error():
                        yield node, None, f"Flower error {reply.error.code}: {str(reply.error.reason)[:300]}"
                    else:
                        yield node, reply, ""
                    del reply
            if not waiting:
                return
            if self.clock.now() >= end:
                break
            if not progress:
                self.clock.sleep(self.poll_s)
        for node in waiting.values():
            yield node, None, f"no reply within {self.deadline_s:g} s (rounds.reply_deadline_s)"
