"""Hostile nodes that see every honest update of the round before they send their own. No real node can: worst case.

For drills over a grid in one process, which hands over the replies of a round before it delivers them.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import torch
from flwr.app import Message
from torch import Tensor

from clients import attacks
from clients.parcels import parcel_blocks, with_blocks
from strategies.messages import TrainReply, pack, pack_buffers, read_header, read_parcel
from trfmoe_core.errors import WireError
from trfmoe_core.seeds import seed_for
from trfmoe_core.wire import Parcel

Omniscient = Literal["inner_product", "little_enough", "stays_close"]
RULES: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "inner_product": attacks.inner_product,
    "little_enough": attacks.little_enough,
    "stays_close": attacks.stays_close,
}


@dataclass(frozen=True, kw_only=True)
class Conspiracy:
    """Replaces the updates of the `liars` (Flower node ids) by a lie made of the honest ones."""

    attack: Omniscient
    liars: Set[int]

    def __call__(self, replies: Mapping[str, Message]) -> dict[str, Message]:
        """Returns what arrives instead of the replies of one round (by message id); others pass unchanged."""
        sent = {key: opened for key in replies if (opened := _open(replies[key])) is not None}
        liars = [key for key in sent if replies[key].metadata.src_node_id in self.liars]
        honest = [blocks for key, (_, _, blocks) in sent.items() if key not in liars]
        result = dict(replies)
        for key in liars:
            reply, parcel, own = sent[key]
            generator = torch.Generator().manual_seed(seed_for(reply.round, reply.name))
            lies = {block: self._lie(block, honest, generator) for block in own}
            parcel = with_blocks(parcel, {block: lie for block, lie in lies.items() if lie is not None})
            told = reply.model_copy(update={"index": parcel.index, "drill": self.attack})
            result[key] = _answer(replies[key], told, parcel)
        return result

    def _lie(self, block: str, honest: Sequence[Mapping[str, Tensor]], generator: torch.Generator) -> Tensor | None:
        updates = [blocks[block] for blocks in honest if block in blocks]
        if not updates:
            return None
        lie = RULES[self.attack](updates)
        if len(self.liars) == 1:
            return lie
        return lie + attacks.gaussian(lie, attacks.APART, generator)


def _open(message: Message) -> tuple[TrainReply, Parcel, dict[str, Tensor]] | None:
    if message.has_error():
        return None
    try:
        reply = read_header(message, TrainReply)
        if reply.index is None:
            return None
        parcel = read_parcel(message, reply.index, 1 << 62)
    except WireError:
        return None
    return reply, parcel, parcel_blocks(parcel)


def _answer(message: Message, reply: TrainReply, parcel: Parcel) -> Message:
    content = pack(reply, pack_buffers(parcel))
    for key in list(message.content):
        message.content[key] = content[key]
    return message
