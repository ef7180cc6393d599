"""Attacks that withhold or delay the reply."""

import time
from collections.abc import Callable
from threading import Event

from flwr.app import Message

from clients.attacks.base import Seen, message_attack


class DrillCrashError(RuntimeError):
    """The crash that a drill asked for."""


@message_attack("message", "crashes before its training")
def crash(answer: Callable[[], Message], seen: Seen) -> Message:
    """Does nothing.

    Raises:
        DrillCrashError: Always.
    """
    raise DrillCrashError(f"drill: this node crashes in round {seen.round}")


@message_attack("message", "crashes after its training")
def crash_after(answer: Callable[[], Message], seen: Seen) -> Message:
    """Answers, and loses the reply.

    Raises:
        DrillCrashError: Always.
    """
    answer()
    raise DrillCrashError(f"drill: this node crashes after it trained in round {seen.round}")


@message_attack("message", "never answers")
def stall(answer: Callable[[], Message], seen: Seen) -> Message:
    """Waits for ever."""
    Event().wait()
    return answer()


@message_attack("message", "answers {delay_s:g} seconds late")
def slow(answer: Callable[[], Message], seen: Seen) -> Message:
    """Returns the honest reply after the drill's delay."""
    message = answer()
    time.sleep(seen.drill.delay_s)
    return message
