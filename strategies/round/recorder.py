"""The interface through which the strategy writes events and commits."""

from typing import Any, Protocol

from trfmoe_core.blocks import Blocks


class Recorder(Protocol):
    """The strategy's way to journal and checkpoints."""

    def record(self, kind: str, **fields: Any) -> None:
        """Appends one event."""

    def commit(self, round_number: int, blocks: Blocks, tensors: Blocks, state: dict[str, Any]) -> None:
        """Makes the result of a round, and all else that the next one starts from, durable."""

    def head(self) -> tuple[int, str]:
        """Returns the number of events so far and the hash that they end in, 64 hexadecimal digits."""
