"""Flower's ClientApp: every message is answered, whatever goes wrong; a node that answers nothing is lost for good."""

import datetime
import logging
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.drill import drill_mod, recipe_path
from clients.limits import check_round
from clients.node import node_settings
from clients.worker import Worker
from strategies.agreement import disagreement
from strategies.messages import (
    DescribeRequest,
    Description,
    TrainReply,
    TrainRequest,
    pack,
    pack_buffers,
    read_header,
    read_parcel,
)
from strategies.pings import PING
from trfmoe_core.config.section import Section
from trfmoe_core.errors import TRFMoEError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.places import home

log = logging.getLogger("trfmoe.node")
app = ClientApp(mods=[drill_mod])
Handler = Callable[[Message, Context], Message]


def answered(refusal: Callable[[str], Section]) -> Callable[[Handler], Handler]:
    """Returns a decorator of handlers that answers every exception with a refusal, and says so in this node's log."""

    def decorate(handler: Handler) -> Handler:
        def guard(message: Message, context: Context) -> Message:
            try:
                return handler(message, context)
            except TRFMoEError as error:
                log.error("refused: %s", error)
                return Message(pack(refusal(f"{type(error).__name__}: {error}"[:2000])), reply_to=message)
            except Exception as error:
                log.exception("the request failed")
                return Message(pack(refusal(f"{type(error).__name__}: {error}"[:2000])), reply_to=message)

        return guard

    return decorate


def _no_part(reason: str, name: str = "unknown") -> Description:
    return Description(name=name, code_fingerprint=code_fingerprint(), versions={}, refusal=reason)


def _no_training(reason: str) -> TrainReply:
    return TrainReply(run_id="", round=0, epoch=0, base_digest="0" * 64, name="unknown", error=reason)


@app.query()
@answered(_no_part)
def describe(message: Message, context: Context) -> Message:
    """Answers who this node is, after preparing its data, and whether it agrees to the run."""
    request = read_header(message, DescribeRequest)
    settings = node_settings(context.node_config, recipe_path(context), home())
    try:
        description = Worker(settings, request.recipe).describe(request.run_id)
    except TRFMoEError as error:
        description = _no_part(f"{type(error).__name__}: {error}"[:2000], settings.name)
    reason = description.refusal or disagreement(request, description)
    if reason:
        log.error("refused: %s", reason)
    return Message(pack(description.model_copy(update={"refusal": reason})), reply_to=message)


@app.query(PING)
@answered(_no_part)
def ping(message: Message, context: Context) -> Message:
    """Answers that this node takes messages."""
    return Message(RecordDict(), reply_to=message)


@app.train()
@answered(_no_training)
def train(message: Message, context: Context) -> Message:
    """Evaluates the arriving model, trains it on the node's own text, answers with the updates of held blocks."""
    return _work(message, context)


@app.evaluate()
@answered(_no_training)
def evaluate(message: Message, context: Context) -> Message:
    """Evaluates the arriving model on the node's held-out text."""
    return _work(message, context)


def _work(message: Message, context: Context) -> Message:
    request = read_header(message, TrainRequest)
    settings = node_settings(context.node_config, recipe_path(context), home())
    if request.steps:
        check_round(settings, request.held, datetime.datetime.now())
    worker = Worker(settings, request.recipe)
    parcel = read_parcel(message, request.index, 1 << 62)
    reply, updates = worker.work(request, parcel)
    return Message(pack(reply, None if updates is None else pack_buffers(updates)), reply_to=message)
