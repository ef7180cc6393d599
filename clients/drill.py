"""Faults that a node plays on purpose, to show that the federation bears them: a Flower mod round the honest client."""

from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Context, Message, MessageType
from torch import Tensor

from clients.node import node_settings
from strategies.messages import TrainReply, TrainRequest, pack, pack_buffers, read_header, read_parcel
from trfmoe_core.config import DrillConfig
from trfmoe_core.config.places import find_recipe, home
from trfmoe_core.errors import TRFMoEError
from trfmoe_core.wire import map_values

ClientCall = Callable[[Message, Context], Message]


class DrillCrashError(RuntimeError):
    """The crash that a drill asked for."""


def drill_mod(message: Message, context: Context, call: ClientCall) -> Message:
    """Lets the client answer, and spoils its updates when the node's own settings ask for a drill in this round."""
    if message.metadata.message_type != MessageType.TRAIN:
        return call(message, context)
    try:
        drill = node_settings(context.node_config, recipe_path(context), home()).drill
        round_number = read_header(message, TrainRequest).round
    except TRFMoEError:
        # The client itself answers what is wrong with its settings or with the message.
        return call(message, context)
    if drill is None or not drill.active(round_number):
        return call(message, context)
    if drill.attack == "crash":
        raise DrillCrashError(f"drill: this node crashes in round {round_number}")
    return _spoiled(message, call(message, context), drill)


def recipe_path(context: Context) -> Path:
    """Returns the recipe that the run configuration names; read only by nodes that find their settings in it."""
    return find_recipe(str(context.run_config.get("recipe", "")))


def _spoiled(message: Message, answer: Message, drill: DrillConfig) -> Message:
    reply = read_header(answer, TrainReply)
    if reply.index is None:
        return answer
    parcel = map_values(read_parcel(answer, reply.index, 1 << 62), lambda values: _lie(drill, values))
    label = f"scale x{drill.factor:g}" if drill.attack == "scale" else drill.attack
    told = reply.model_copy(update={"index": parcel.index, "drill": label})
    return Message(pack(told, pack_buffers(parcel)), reply_to=message)


def _lie(drill: DrillConfig, update: Tensor) -> Tensor:
    if drill.attack == "scale":
        return update * drill.factor
    if drill.attack == "sign_flip":
        return -update
    if drill.attack == "zero":
        return torch.zeros_like(update)
    return torch.full_like(update, float("nan"))
