"""Checks one reply of a node completely against the request, before any of it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flwr.app import Message

from strategies.exchange.messages import Training, TrainReply, TrainRequest, has_parcel, read_header, read_parcel
from strategies.exchange.refusals import sentence
from strategies.exchange.size_limits import SizeLimits, answer_limits, reply_blocks
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.errors import WireError
from trfmoe_core.training.shared_momentum import PREFIX, split_momentum
from trfmoe_core.wire import Parcel, Replica, views


@dataclass(frozen=True, kw_only=True)
class CheckedReply:
    """A reply that has passed all checks. `updates` is empty when nothing was trained."""

    reply: TrainReply
    updates: dict[str, Replica]
    parcel: Parcel
    """Where the updates lie; empty when nothing was trained."""
    momentum: dict[str, Replica] = field(default_factory=dict)
    """The momentum of blocks, if it was asked for; it lies in the parcel, too."""

    @property
    def num_bytes(self) -> int:
        """Size of what was sent."""
        return self.parcel.num_bytes

    @property
    def training(self) -> Training:
        """The measurements of the training.

        Raises:
            WireError: when the reply has none.
        """
        if self.reply.training is None:
            raise WireError("the reply has no training measurements")
        return self.reply.training


def check_reply(
    message: Message,
    request: TrainRequest,
    name: str,
    layout: BlockLayout,
    recipe: Recipe,
    room: SizeLimits | None = None,
) -> CheckedReply:
    """Returns a node's reply, checked and decoded.

    Args:
        message: What arrived from the node.
        request: What the node was sent.
        name: The node's name.
        layout: The model's blocks.
        recipe: The run.
        room: How large the reply may be, for whoever knows it already: `answer_limits` of the request.

    Raises:
        WireError: saying what is wrong; the reply must be dropped then.
    """
    room = room or answer_limits(request, layout, recipe)
    reply = read_header(message, TrainReply, room.header, room.values)
    if reply.error is not None:
        raise WireError(f"the node reports: {sentence(reply.error)}")
    if reply.name != name:
        raise WireError(f"the reply is signed {reply.name!r}")
    for key in ("run_id", "round", "epoch", "base_digest"):
        sent, echoed = getattr(request, key), getattr(reply, key)
        if sent != echoed:
            raise WireError(f"{key} is {str(echoed)[:16]!r}, not {str(sent)[:16]!r}: a reply to another request")
    if reply.lacks_frozen:
        raise WireError("the node lacks the weights that are never trained; it gets them with its next request")
    if reply.lacks_base:
        raise WireError("the node lacks the model that it would need to read this one")
    if request.steps == 0:
        if reply.evaluation is None:
            raise WireError("the reply has no evaluation")
        if reply.index is not None or has_parcel(message):
            raise WireError("the reply has a parcel, and only an evaluation was asked for")
        return CheckedReply(reply=reply, updates={}, parcel=Parcel("", ()))
    _check_training(reply, request, recipe)
    if reply.index is None:
        raise WireError("the reply has no index of its parcel")
    parcel = read_parcel(message, reply.index, room.parcel, room.buffers)
    wanted = reply_blocks(request, layout)
    found = views(parcel, layout, wanted, [recipe.transport.updates])
    absent = [block for block in wanted if block not in found]
    if absent:
        raise WireError(f"{len(absent)} of the {len(wanted)} blocks that the node holds are missing: {absent[0]}")
    return _sorted_out(reply, found, parcel)


def relocated(checked: CheckedReply, parcel: Parcel, layout: BlockLayout, recipe: Recipe) -> CheckedReply:
    """Returns a checked reply whose updates lie in other memory with the same bytes, such as a mapped file.

    Args:
        checked: The reply.
        parcel: The same buffers in the other memory.
        layout: Sizes of the blocks.
        recipe: The run's recipe.
    """
    dtype = recipe.transport.updates
    names = [*checked.updates, *(PREFIX + block for block in checked.momentum)]
    return _sorted_out(checked.reply, views(parcel, layout, names, [dtype], hashed=True), parcel)


def _sorted_out(reply: TrainReply, found: Mapping[str, Replica], parcel: Parcel) -> CheckedReply:
    updates, momentum = split_momentum(found)
    return CheckedReply(reply=reply, updates=updates, parcel=parcel, momentum=momentum)


def _check_training(reply: TrainReply, request: TrainRequest, recipe: Recipe) -> None:
    training = reply.training
    if training is None:
        raise WireError("the reply has no training measurements")
    model = recipe.model
    if [len(row) for row in training.expert_share] != [model.experts] * model.layers:
        raise WireError(f"expert_share is not {model.layers} rows of {model.experts} shares")
    # A node may run several devices, so its token count is bounded, not fixed.
    expected = request.steps * recipe.training.batch_size * recipe.training.accumulation * model.context
    if training.tokens > 1024 * expected:
        raise WireError(f"{training.tokens} tokens in {request.steps} steps; about {expected} are possible")


Lack = Literal["base", "frozen"]
"""What a node can lack: the model that the difference must be added to, or the weights that are never trained."""


def lack_of(message: Message, room: SizeLimits) -> Lack | None:
    """Returns what a node answers that it lacks.

    Raises:
        WireError: the message has no header that says so or not.
    """
    reply = read_header(message, TrainReply, room.header, room.values)
    if reply.lacks_frozen:
        return "frozen"
    return "base" if reply.lacks_base else None
