"""Faults that a node plays on purpose, to show that the federation bears them: a Flower mod round the honest client.

What each `drill.attack` does:

- `crash`, `crash_during`, `crash_after`: raises before, in the middle of and after the training;
- `slow`, `stall`: answers `delay_s` later, or never;
- `scale`, `sign_flip`, `gaussian`, `nan`, `inf`, `zero`: sends something else than its update, see `attacks`;
- `replay`: sends its first update again and again, signed for the round that was asked for;
- `stale`: the same with a little noise each time, so that no two are equal;
- `label_flip`: trains on wrong targets;
- `token_lie`: claims more tokens than it trained on;
- `bit_flip`: one bit of what it sends changes on the way;
- `garbage`: everything is wrong: header, names, shapes, sizes, another kind of wrong each round.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from clients import attacks
from clients.node import node_settings
from clients.parcels import parcel_blocks, with_blocks
from strategies.messages import TrainReply, TrainRequest, pack, pack_buffers, read_header, read_parcel
from trfmoe_core.config import DrillConfig
from trfmoe_core.errors import TRFMoEError
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.places import find_recipe, home
from trfmoe_core.seeds import seed_for
from trfmoe_core.wire import Parcel

ClientCall = Callable[[Message, Context], Message]
Arguments = tuple[Any, ...]
_MEMORY = "drill"


class DrillCrashError(RuntimeError):
    """The crash that a drill asked for."""


class _Killed(BaseException):
    """Like SIGKILL: the client's own error handling must not see it."""


def drill_mod(message: Message, context: Context, call: ClientCall) -> Message:
    """Lets the client answer, and spoils it when the node's own settings ask for a drill in this round."""
    if message.metadata.message_type != MessageType.TRAIN:
        return call(message, context)
    try:
        settings = node_settings(context.node_config, recipe_path(context), home())
        request = read_header(message, TrainRequest)
    except TRFMoEError:
        # The client itself answers what is wrong with its settings or with the message.
        return call(message, context)
    drill = settings.drill
    if drill is None or not drill.active(request.round):
        return call(message, context)
    if drill.attack == "crash":
        raise DrillCrashError(f"drill: this node crashes in round {request.round}")
    if drill.attack == "stall":
        Event().wait()
    answer = _trained(message, context, call, drill, request)
    if drill.attack == "crash_after":
        raise DrillCrashError(f"drill: this node crashes after it trained in round {request.round}")
    if drill.attack == "slow":
        time.sleep(drill.delay_s)
    generator = torch.Generator().manual_seed(seed_for(request.round, settings.name) % 2**63)
    return _spoiled(message, context, answer, drill, generator)


def recipe_path(context: Context) -> Path:
    """Returns the recipe that the run configuration names; read only by nodes that find their settings in it."""
    return find_recipe(str(context.run_config.get("recipe", "")))


def _trained(
    message: Message, context: Context, call: ClientCall, drill: DrillConfig, request: TrainRequest
) -> Message:
    if drill.attack == "label_flip":
        with _before_training(lambda number, arguments: (arguments[0], arguments[1] ^ 1)):
            return call(message, context)
    if drill.attack == "crash_during":

        def stop(number: int, arguments: Arguments) -> Arguments:
            if number >= request.steps // 2:
                raise _Killed
            return arguments

        try:
            with _before_training(stop):
                call(message, context)
        except _Killed:
            pass
        raise DrillCrashError(f"drill: this node crashes while it trains in round {request.round}")
    return call(message, context)


@contextmanager
def _before_training(change: Callable[[int, Arguments], Arguments]) -> Iterator[None]:
    """Puts `change` (number of the forward pass, its arguments) between the data and a model that trains.

    A bijection of the tokens, such as `x ^ 1` over a padded vocabulary, makes every target a wrong but common one.
    """
    passes = 0

    def hook(module: nn.Module, arguments: Arguments) -> Arguments:
        nonlocal passes
        if not (isinstance(module, MoETransformer) and module.training):
            return arguments
        passes += 1
        return change(passes - 1, arguments)

    handle = register_module_forward_pre_hook(hook)  # type: ignore[arg-type]  # torch takes changed arguments too
    try:
        yield
    finally:
        handle.remove()


def _spoiled(
    message: Message, context: Context, answer: Message, drill: DrillConfig, generator: torch.Generator
) -> Message:
    reply = read_header(answer, TrainReply)
    if reply.index is None or reply.training is None:
        return answer
    parcel = read_parcel(answer, reply.index, 1 << 62)
    if drill.attack in ("replay", "stale"):
        parcel = _first(context, parcel)
    if drill.attack in _LIES:
        lie = _LIES[drill.attack]
        lies = {block: lie(update, drill.factor, generator) for block, update in parcel_blocks(parcel).items()}
        parcel = with_blocks(parcel, lies)
    if drill.attack == "bit_flip":
        parcel = Parcel(parcel.index, (_flip(bytes(parcel.buffers[0]), generator), *parcel.buffers[1:]))
    if drill.attack == "token_lie":
        claim = max(1, round(abs(drill.factor) * reply.training.tokens))
        reply = reply.model_copy(update={"training": reply.training.model_copy(update={"tokens": claim})})
    told = reply.model_copy(update={"index": parcel.index, "drill": drill.label})
    content = pack(told, pack_buffers(parcel))
    if drill.attack == "garbage":
        content = _garbage(told, parcel, generator)
    return Message(content, reply_to=message)


_LIES: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "scale": lambda update, factor, _: attacks.scale(update, factor),
    "gaussian": attacks.gaussian,
    "sign_flip": lambda update, *_: attacks.sign_flip(update),
    "nan": lambda update, *_: attacks.nan(update),
    "inf": lambda update, *_: attacks.inf(update),
    "zero": lambda update, *_: attacks.zero(update),
    "stale": lambda update, _, generator: update + attacks.gaussian(update, attacks.APART, generator),
}


def _first(context: Context, parcel: Parcel) -> Parcel:
    """Returns the parcel with every block as it was when this node sent it for the first time."""
    record = context.state.get(_MEMORY)
    record = record if isinstance(record, ArrayRecord) else ArrayRecord()
    replayed = {}
    for block, update in parcel_blocks(parcel).items():
        if block not in record:
            record[block] = Array(update.numpy())
        replayed[block] = torch.from_numpy(record[block].numpy().copy())
    context.state[_MEMORY] = record
    return with_blocks(parcel, replayed)


def _flip(data: bytes, generator: torch.Generator) -> bytes:
    position = _draw(8 * len(data), generator)
    spoilt = bytearray(data)
    spoilt[position // 8] ^= 1 << position % 8
    return bytes(spoilt)


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
