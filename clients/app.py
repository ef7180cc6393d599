"""Flower's ClientApp. It answers every message, also after an error.

A SuperNode whose client ends without an answer takes no more messages. The node's own log has the full text of an
error; the coordinator gets a code (`strategies.exchange.refusals`).
"""

import logging
import traceback
from collections.abc import Callable

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from clients.attacks.flower_mod import drill_mod, recipe_path
from clients.attacks.outages import DrillCrashError
from clients.kept.told import is_news
from clients.limit_checks import check_hours
from clients.refusals import RefusedError, refusal_of
from clients.settings import node_settings
from clients.worker import Worker
from strategies.exchange.messages import (
    DescribeRequest,
    Description,
    TrainReply,
    TrainRequest,
    pack,
    pack_buffers,
    read_frozen_parcel,
    read_header,
    read_parcel,
)
from strategies.exchange.refusals import Refusal, sentence
from strategies.membership.compatibility import disagreement
from strategies.membership.lost_requests import PING
from trfmoe_core.config import NodeSettings
from trfmoe_core.config.section import Section
from trfmoe_core.errors import TRFMoEError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.places import home
from trfmoe_core.private import private_files
from trfmoe_core.terminal import visible

log = logging.getLogger("trfmoe.node")
MAX_DESCRIBE = 1 << 20
"""Characters of the header that asks who this node is; `clients.recipe_extent` bounds its recipe."""

ClientCall = Callable[[Message, Context], Message]


@private_files()
def answering_mod(message: Message, context: Context, call: ClientCall) -> Message:
    """Answers every exception with a refusal. Flower would send its text, which may name a path or quote a file."""
    try:
        return call(message, context)
    except DrillCrashError:
        raise  # the node was told to die in this way
    except Exception as error:  # noqa: BLE001  Whatever it is, the coordinator gets a code.
        return Message(pack(_refused(message, _logged(error))), reply_to=message)


app = ClientApp(mods=[answering_mod, drill_mod])


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Answers who this node is, after preparing its data, and whether it agrees to the run."""
    request = read_header(message, DescribeRequest, MAX_DESCRIBE)
    settings = node_settings(context.node_config, recipe_path(context), home())
    try:
        description = _described(settings, request)
    except Exception as error:  # noqa: BLE001  Like any other, but the coordinator can be told whose it is.
        description = _no_part(_logged(error), settings)
    return Message(pack(description), reply_to=message)


@app.query(PING)
def ping(message: Message, context: Context) -> Message:
    """Answers that this node takes messages."""
    return Message(RecordDict(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluates the arriving model, trains it on the node's own text, answers with the updates of held blocks."""
    return _work(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluates the arriving model on the node's held-out text."""
    return _work(message, context)


def _described(settings: NodeSettings, request: DescribeRequest) -> Description:
    check_hours(settings)
    description = Worker(settings, request.recipe).describe(request.run_id)
    if reason := disagreement(request, description):
        _logged(RefusedError(Refusal(code="differs"), reason))
        return description.model_copy(update={"refusal": Refusal(code="differs")})
    return description


def _work(message: Message, context: Context) -> Message:
    request = read_header(message, TrainRequest)
    settings = node_settings(context.node_config, recipe_path(context), home())
    check_hours(settings)
    worker = Worker(settings, request.recipe)
    parcel = read_parcel(message, request.index, 1 << 62)
    reply, updates = worker.work(request, parcel, read_frozen_parcel(message, request))
    return Message(pack(reply, None if updates is None else pack_buffers(updates)), reply_to=message)


def _logged(error: Exception) -> Refusal:
    """Writes what went wrong to this node's log in full, once in a while, and returns what the coordinator is told."""
    refusal = refusal_of(error)
    # Some of it is the coordinator's, such as a key in its recipe: it must not steer a terminal, nor fake a line.
    if isinstance(error, TRFMoEError):
        text = f"refused (the coordinator is told: {sentence(refusal)}): {visible(str(error), layout='')}"
    else:
        trace = visible("".join(traceback.format_exception(error)))
        text = f"the request failed (the coordinator is told: {sentence(refusal)}):\n{trace}"
    if is_news(text):
        log.error("%s", text)
    return refusal


def _refused(message: Message, refusal: Refusal) -> Section:
    if message.metadata.message_type.partition(".")[0] == MessageType.QUERY:
        return _no_part(refusal)
    return TrainReply(run_id="", round=0, epoch=0, base_digest="0" * 64, name="unknown", error=refusal)


def _no_part(refusal: Refusal, settings: NodeSettings | None = None) -> Description:
    name = settings.name if settings else "unknown"
    return Description(name=name, code_fingerprint=code_fingerprint(), versions={}, refusal=refusal)
