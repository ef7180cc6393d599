"""Opens replies and changes the updates in them, for attacks and their tests. The model's layout is not needed."""

import json
from collections.abc import Mapping

from flwr.app import Message
from torch import Tensor

from strategies.exchange.messages import TrainReply, pack, pack_buffers, read_header, read_parcel
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Parcel, map_values

NO_LIMIT = 1 << 62


def open_reply(message: Message) -> tuple[TrainReply, Parcel] | None:
    """Returns header and updates of a reply; None if it carries no updates, or nobody can read it."""
    if message.has_error():
        return None
    try:
        reply = read_header(message, TrainReply)
        if reply.index is None or reply.training is None:
            return None
        return reply, read_parcel(message, reply.index, NO_LIMIT)
    except WireError:
        return None


def refill_reply(message: Message, reply: TrainReply, parcel: Parcel) -> Message:
    """Returns the message with another header and other updates."""
    message.content = pack(reply.model_copy(update={"index": parcel.index}), pack_buffers(parcel))
    return message


def parcel_blocks(parcel: Parcel) -> dict[str, Tensor]:
    """Returns block name -> flat float32 values. The index is trusted."""
    values: list[Tensor] = []

    def keep(update: Tensor) -> Tensor:
        values.append(update)
        return update

    map_values(parcel, keep)
    return dict(zip(_names(parcel), values, strict=True))


def with_blocks(parcel: Parcel, blocks: Mapping[str, Tensor]) -> Parcel:
    """Returns the parcel with other values in the blocks that `blocks` names, and digests that fit."""
    names = iter(_names(parcel))
    return map_values(parcel, lambda update: blocks.get(next(names), update))


def _names(parcel: Parcel) -> list[str]:
    return [entry["block"] for entry in json.loads(parcel.index)["entries"]]
