"""The interface through which the strategy writes events and commits."""

from typing import Any, Protocol

from trfmoe_core.blocks import Blocks


class Recorder(Protocol):
    """The strategy's way to journal and checkpoints."""

    def record(self, kind: str, **fields: Any) -> None:
        """Appends one event."""

    def commit(self, round_number: int, blocks: Blocks, tensors: Blocks, state: dict[str, Any]) -> None:
        """Writes a round's result, and all else that the next round starts from, so that it survives a crash.

        Args:
            round_number: The round.
            blocks: The model: flat float32 vectors by block name.
            tensors: The outer optimizer's tensors.
            state: What else the next round starts from; JSON values.
        """

    def head(self) -> tuple[int, str]:
        """Returns the number of events so far and the hash that they end in, 64 hexadecimal digits."""
