"""Replies that look right and are not: parts left out, and old updates in new clothes."""

import json

import pytest
import torch
from flwr.app import Error, Message, MessageType

from strategies.exchange.messages import TrainReply, pack, pack_buffers
from strategies.round.replay_guard import REMEMBERED, ReplayGuard
from strategies.round.replies import check_reply
from tests.strategies.round.receiver import LAYOUT, PARAMETERS, RECIPE, REPLY, REQUEST, message_of
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Replica, encode, views

UPDATES = LAYOUT.gather(PARAMETERS)


def test_a_replay_is_one_however_its_index_is_written() -> None:
    guard = ReplayGuard()
    guard.remember("ada", REPLY, UPDATES)
    tree = json.loads(REPLY.index or "")
    spaced = json.dumps(tree, indent=1)
    turned = json.dumps({"version": tree["version"], "entries": tree["entries"][::-1]})
    for index in (REPLY.index, spaced, turned):
        with pytest.raises(WireError, match="a replay: the node has sent exactly these"):
            guard.check("ada", REPLY.model_copy(update={"index": index}), UPDATES)
    guard.check("bob", REPLY, UPDATES)
    ReplayGuard(guard.state()).check("bob", REPLY, UPDATES)
    with pytest.raises(WireError, match="replay"):
        ReplayGuard(guard.state()).check("ada", REPLY, UPDATES)


def resent(change: float, factor: float = 1.0, dtype: str = "float32") -> tuple[TrainReply, dict[str, Replica]]:
    draw = torch.Generator().manual_seed(1)
    blocks = {
        name: factor * (flat + change * flat.std() * torch.randn(flat.shape, generator=draw))
        for name, flat in UPDATES.items()
    }
    parcel = encode(blocks, LAYOUT, dtype, 1 << 20)
    return REPLY.model_copy(update={"index": parcel.index}), dict(views(parcel, LAYOUT, list(blocks), [dtype]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_an_update_with_a_little_noise_or_another_length_is_a_replay_and_a_new_one_is_not(dtype: str) -> None:
    guard = ReplayGuard()
    guard.remember("ada", *resent(0.0, dtype=dtype))
    guard = ReplayGuard(json.loads(json.dumps(guard.state())))
    for change, factor in ((0.001, 1.0), (0.02, 1.0), (0.0, 7.0), (0.01, 1e-6)):
        with pytest.raises(WireError, match="a replay: the updates have cosine"):
            guard.check("ada", *resent(change, factor, dtype))
    guard.check("ada", *resent(0.5, 1.0, dtype))
    guard.check("ada", *resent(0.0, -1.0, dtype))
    reply, updates = resent(0.001, 1.0, dtype)
    guard.check("ada", reply, {"trunk": updates["trunk"]})


def test_only_so_many_updates_are_remembered_and_zeros_are_like_nothing() -> None:
    guard = ReplayGuard()
    zeros = {name: torch.zeros_like(flat) for name, flat in UPDATES.items()}
    for number in range(REMEMBERED + 1):
        reply, updates = resent(float(number))
        guard.remember("ada", reply, zeros if number == 3 else updates)
    guard.check("ada", *resent(0.0))
    with pytest.raises(WireError, match="exactly"):
        guard.check("ada", *resent(1.0))
    guard.check("ada", resent(0.123)[0], zeros)
    assert len(json.dumps(guard.state())) < REMEMBERED * 4000


@pytest.mark.parametrize("kept", [[], ["trunk"]])
def test_a_reply_without_a_held_block_is_dropped(kept: list[str]) -> None:
    part = encode({k: v for k, v in LAYOUT.gather(PARAMETERS).items() if k in kept}, LAYOUT, "float32", 1000)
    reply = REPLY.model_copy(update={"index": part.index})
    with pytest.raises(WireError, match="missing"):
        check_reply(message_of(pack(reply, pack_buffers(part))), REQUEST, "ada", LAYOUT, RECIPE)


def test_an_error_of_flower_is_a_wire_error() -> None:
    request = Message(pack(REPLY), 1, MessageType.TRAIN)
    request.metadata.__dict__["_message_id"] = "1"
    with pytest.raises(WireError, match="error 2"):
        check_reply(Message(Error(code=2, reason="boom"), reply_to=request), REQUEST, "ada", LAYOUT, RECIPE)
