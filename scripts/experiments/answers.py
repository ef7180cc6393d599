"""Keeps the nodes' answers, so that training which several cells share is done once.

Cells of one seed start from the same model. If a vote rejects a fault in every block, the model stays the same. An
honest answer depends only on the request, the node's text and the node's state, so a kept answer is bit for bit the
same.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from clients.app import answering_mod, describe, evaluate, train
from clients.attacks.base import find_attack
from clients.attacks.flower_mod import drill_mod, recipe_path
from clients.attacks.reply_editing import NO_LIMIT
from clients.kept.states import earlier_state_path, state_path
from clients.settings import node_settings, state_folder
from strategies.exchange.messages import TrainReply, TrainRequest, pack, pack_buffers, read_header, read_parcel
from trfmoe_core.atomic import write_bytes
from trfmoe_core.config import NodeSettings
from trfmoe_core.places import home
from trfmoe_core.wire import Parcel

ClientCall = Callable[[Message, Context], Message]

COORDINATOR_SECTIONS = ("name", "vote", "agreement", "reputation", "outer", "log")
"""Sections of a recipe that no node's work depends on."""


def remembering_app(folder: Path) -> ClientApp:
    """Returns the nodes' app, which keeps honest answers in `folder`; attacks are played on top of them."""

    def remember(message: Message, context: Context, call: ClientCall) -> Message:
        if message.metadata.message_type == MessageType.QUERY:
            return call(message, context)
        settings = node_settings(context.node_config, recipe_path(context), home())
        if settings.drill is not None and find_attack(settings.drill.attack).needs in ("training", "model"):
            return call(message, context)  # the attack reaches into the training, so there must be one
        request = read_header(message, TrainRequest)
        state = state_folder(settings, request.run_id)
        place = folder / _key(request, settings, state)
        if place.with_suffix(".json").exists():
            return _kept_answer(place, request, state, message)
        answer = call(message, context)
        _keep(place, answer, request, state)
        return answer

    app = ClientApp(mods=[answering_mod, drill_mod, remember])
    app.query()(describe)
    app.train()(train)
    app.evaluate()(evaluate)
    return app


def _key(request: TrainRequest, settings: NodeSettings, state: Path) -> str:
    asked = request.model_dump(mode="json", exclude={"run_id", "epoch", "index", "recipe"})
    recipe = {name: value for name, value in request.recipe.items() if name not in COORDINATOR_SECTIONS}
    before = earlier_state_path(state, request.round)
    parts: list[Any] = [asked, recipe, settings.name, settings.data, before.read_bytes() if before else b""]
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def _keep(place: Path, answer: Message, request: TrainRequest, state: Path) -> None:
    reply = read_header(answer, TrainReply)
    # Under the other rules faults leave different models behind, so only the first round is shared.
    if reply.error is not None or (request.round > 1 and request.recipe["vote"] != "majority"):
        return
    if reply.index is not None:
        (buffer,) = read_parcel(answer, reply.index, NO_LIMIT).buffers
        write_bytes(place.with_suffix(".parcel"), bytes(buffer))
        # The node replaces its state files and never writes into one, so both may share the bytes.
        _link(state_path(state, request.round), place.with_suffix(".state"))
    write_bytes(place.with_suffix(".json"), reply.model_dump_json().encode())


def _kept_answer(place: Path, request: TrainRequest, state: Path, message: Message) -> Message:
    reply = TrainReply.model_validate_json(place.with_suffix(".json").read_text())
    reply = reply.model_copy(update={"run_id": request.run_id, "epoch": request.epoch})
    if reply.index is None:
        return Message(pack(reply), reply_to=message)
    _link(place.with_suffix(".state"), state_path(state, request.round))
    parcel = Parcel(reply.index, (place.with_suffix(".parcel").read_bytes(),))
    return Message(pack(reply, pack_buffers(parcel)), reply_to=message)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source, target)
