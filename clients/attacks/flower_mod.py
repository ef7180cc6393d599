"""Plays an attack in a node: a Flower mod round the honest client."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MessageType

from clients.attacks.base import Attack, Seen, find_attack
from clients.attacks.reply_editing import open_reply, parcel_blocks, refill_reply, with_blocks
from clients.attacks.training import recorded_learner
from clients.settings import node_settings
from strategies.exchange.messages import TrainRequest, read_header
from trfmoe_core.blocks import Blocks
from trfmoe_core.config import DrillConfig, Recipe
from trfmoe_core.config.load import validate
from trfmoe_core.errors import TRFMoEError
from trfmoe_core.places import find_recipe, home
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.shared_momentum import split_momentum

ClientCall = Callable[[Message, Context], Message]
_FIRST = "drill"
"""Record of the node's state with the first updates, for attacks that send them again."""


def drill_mod(message: Message, context: Context, call: ClientCall) -> Message:
    """Lets the client answer, and plays the attack that the node's own settings ask for in this round."""
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
    attack = find_attack(drill.attack)
    seen = Seen(
        drill=drill,
        round=request.round,
        steps=request.steps,
        generator=torch.Generator().manual_seed(seed_for(request.round, settings.name) % 2**63),
    )

    def answer() -> Message:
        return _labelled(call(message, context), drill)

    if attack.on_message is not None:
        return attack.on_message(answer, seen)
    return _with_wrong_updates(answer, attack, seen, context, request)


def recipe_path(context: Context) -> Path:
    """Returns the recipe that the run configuration names; read only by nodes that find their settings in it."""
    return find_recipe(str(context.run_config.get("recipe", "")))


def _labelled(message: Message, drill: DrillConfig) -> Message:
    """Returns an honest reply that says which attack its node plays, so that the run's events show it."""
    if (opened := open_reply(message)) is None:
        return message
    reply, parcel = opened
    return refill_reply(message, reply.model_copy(update={"drill": drill.label}), parcel)


def _with_wrong_updates(
    answer: Callable[[], Message], attack: Attack, seen: Seen, context: Context, request: TrainRequest
) -> Message:
    with ExitStack() as stack:
        learner = None
        if attack.needs == "model":
            rate = validate(Recipe, request.recipe, "recipe").training.learning_rate
            learner = stack.enter_context(recorded_learner(rate))
        message = answer()
    if (opened := open_reply(message)) is None or attack.on_updates is None:
        return message
    reply, parcel = opened
    own = split_momentum(parcel_blocks(parcel))[0]
    seen = replace(seen, first=lambda: _first_updates(context, own), learner=learner and learner())
    return refill_reply(message, reply, with_blocks(parcel, attack.on_updates(own, seen)))


def _first_updates(context: Context, own: Blocks) -> Blocks:
    """Returns every block as it was when this node played a repeating attack on it for the first time."""
    record = context.state.get(_FIRST)
    record = record if isinstance(record, ArrayRecord) else ArrayRecord()
    first = {}
    for block, update in own.items():
        if block not in record:
            record[block] = Array(update.numpy())
        first[block] = torch.from_numpy(record[block].numpy().copy())
    context.state[_FIRST] = record
    return first
