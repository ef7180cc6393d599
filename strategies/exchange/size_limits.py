"""How large an answer may be: no larger than an honest answer under this recipe.

Sizes are checked before anything is parsed, because a parser may take a hundred times the memory of its input.
"""

import json
from dataclasses import dataclass

from strategies.exchange.messages import TrainRequest
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.training.shared_momentum import momentum_names
from trfmoe_core.wire import encoded_size, longest_index

_TEXTS = 32 * 1024
"""Most characters of a header without shares and index: every text at its longest, partly escaped."""

_VALUES = 4096
"""Most values of a header without shares and index. Commas inside texts count as values."""

_SHARE = 26
"""Most characters of one float with all its digits and its separator."""

_CHUNK = 256 * 1024
"""Most bytes of one piece of an array. Flower sends pieces of 5 MiB."""


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """Bounds of one answer.

    Attributes:
        header: Characters of its JSON header.
        values: JSON values in the header, counted by `[`, `{`, `,` and `:`.
        parcel: Bytes of all buffers.
        buffers: Number of buffers.
    """

    header: int = 2 * _TEXTS
    values: int = _VALUES
    parcel: int = 0
    buffers: int = 0

    @property
    def objects(self) -> int:
        """Number of Flower's objects: message, records, arrays and the pieces of arrays."""
        return 16 + 2 * self.buffers + self.parcel // _CHUNK

    @property
    def overhead(self) -> int:
        """Bytes of all objects that are no pieces of an array: UTF-8 may take four a character."""
        return 4 * self.header + 512 * self.objects


DESCRIPTION = SizeLimits()
"""The limits of a node's description and of the answer to a ping."""


def reply_blocks(request: TrainRequest, layout: BlockLayout) -> list[str]:
    """Returns the blocks that the reply to a request must bring.

    Args:
        request: The request.
        layout: Of what travels, by `with_momentum` where momentum does.
    """
    return [*request.held, *(momentum_names(layout, request.held) if request.wants_momentum else ())]


def answer_limits(request: TrainRequest, layout: BlockLayout, recipe: Recipe) -> SizeLimits:
    """Returns the room of the answer to a request; without training, that of a header alone."""
    if not request.steps:
        return SizeLimits()
    known = [block for block in reply_blocks(request, layout) if block in layout.specs]
    index = longest_index(layout, known)
    model = recipe.model
    return SizeLimits(
        header=_TEXTS + model.layers * (_SHARE * model.experts + 4) + 2 * len(json.dumps(index)),
        values=_VALUES + model.layers * (model.experts + 2) + sum(index.count(mark) for mark in "[{,:"),
        parcel=sum(encoded_size(layout.specs[block], recipe.transport.updates) for block in known),
        buffers=len(known),  # no buffer is empty, and every block lies in one
    )
