"""Attacks that falsify the reply: a false token count, a flipped bit, or rubbish in every field."""

import json
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from clients.attacks.base import Seen, message_attack
from clients.attacks.reply_editing import open_reply, refill_reply
from strategies.exchange.messages import TrainReply, pack, pack_buffers
from trfmoe_core.wire import Parcel


@message_attack("message", "claims {factor:g} times the tokens that it trained on")
def token_lie(answer: Callable[[], Message], seen: Seen) -> Message:
    """Returns the honest reply with a false token count."""
    message = answer()
    if (opened := open_reply(message)) is None or (training := opened[0].training) is None:
        return message
    reply, parcel = opened
    claim = max(1, round(abs(seen.drill.factor) * training.tokens))
    return refill_reply(
        message, reply.model_copy(update={"training": training.model_copy(update={"tokens": claim})}), parcel
    )


@message_attack("message", "sends a reply of which one bit changes on the way")
def bit_flip(answer: Callable[[], Message], seen: Seen) -> Message:
    """Returns the honest reply with one bit of its first buffer flipped."""
    message = answer()
    if (opened := open_reply(message)) is None:
        return message
    reply, parcel = opened
    first = bytearray(parcel.buffers[0])
    position = _draw(8 * len(first), seen.generator)
    first[position // 8] ^= 1 << position % 8
    return refill_reply(message, reply, Parcel(parcel.index, (bytes(first), *parcel.buffers[1:])))


@message_attack("message", "sends garbage: header, names, shapes or sizes are wrong, in another way each round")
def garbage(answer: Callable[[], Message], seen: Seen) -> Message:
    """Returns a reply that nobody can read."""
    message = answer()
    if (opened := open_reply(message)) is not None:
        message.content = _garbage(*opened, seen.generator)
    return message


def _garbage(reply: TrainReply, parcel: Parcel, generator: torch.Generator) -> RecordDict:
    noise = np.random.default_rng(_draw(2**31, generator)).bytes(4096)
    tree = json.loads(parcel.index)
    entry = tree["entries"][0]
    kind = _draw(8, generator)
    if kind == 0:
        return RecordDict({"header": ConfigRecord({"json": noise.decode("latin-1")}), "what": ArrayRecord()})
    if kind == 1:
        return RecordDict()
    if kind == 2:
        reply = reply.model_copy(update={"round": 10**6, "epoch": 0, "base_digest": "f" * 64})
    elif kind == 3:
        entry["block"] = "layers.99.experts.99"
    elif kind == 4:
        entry["tensors"] = [["no.such.weight", [3, 5, 7]]]
    elif kind == 5:
        entry["size"], entry["offset"] = 10**12, -4
    elif kind == 6:
        entry["dtype"] = "complex128"
    else:
        return pack(reply, ArrayRecord({"0": Array(dtype="float32", shape=(7, 7), stype="numpy", data=noise)}))
    index = json.dumps(tree, separators=(",", ":"))
    return pack(reply.model_copy(update={"index": index}), pack_buffers(parcel))


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=generator))
