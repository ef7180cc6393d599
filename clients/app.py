"""Flower's ClientApp: every message is answered, whatever goes wrong; a node that answers nothing is lost for good."""

import logging
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.drill import drill_mod, recipe_path
from clients.node import node_settings
from clients.worker import Worker
from strategies.messages import DescribeRequest, TrainReply, TrainRequest, pack, pack_buffers, read_header, read_parcel
from trfmoe_core.config.places import home

log = logging.getLogger("trfmoe.node")
app = ClientApp(mods=[drill_mod])
Handler = Callable[[Message, Context], Message]


def answered(handler: Handler) -> Handler:
    """Returns a handler that turns every exception into an error reply that the coordinator drops and records."""

    def guard(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except Exception as error:
            log.exception("the request failed")
            text = f"{type(error).__name__}: {error}"[:2000]
            refused = TrainReply(run_id="", round=0, epoch=0, base_digest="0" * 64, name="unknown", error=text)
            return Message(pack(refused), reply_to=message)

    return guard


@app.query()
@answered
def describe(message: Message, context: Context) -> Message:
    """Answers who this node is, after preparing its data."""
    request = read_header(message, DescribeRequest)
    settings = node_settings(context.node_config, recipe_path(context), home())
    return Message(pack(Worker(settings, request.recipe).describe(request.run_id)), reply_to=message)


@app.train()
@answered
def train(message: Message, context: Context) -> Message:
    """Evaluates the arriving model, trains it on the node's own text, answers with the updates of held blocks."""
    return _work(message, context)


@app.evaluate()
@answered
def evaluate(message: Message, context: Context) -> Message:
    """Evaluates the arriving model on the node's held-out text."""
    return _work(message, context)


def _work(message: Message, context: Context) -> Message:
    request = read_header(message, TrainRequest)
    settings = node_settings(context.node_config, recipe_path(context), home())
    worker = Worker(settings, request.recipe)
    parcel = read_parcel(message, request.index, 1 << 62)
    reply, updates = worker.work(request, parcel)
    return Message(pack(reply, None if updates is None else pack_buffers(updates)), reply_to=message)
