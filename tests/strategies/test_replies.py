"""Replies that look right and are not: parts left out, and old updates in new clothes."""

import json

import pytest
from flwr.app import Error, Message, MessageType

from strategies.messages import pack, pack_buffers
from strategies.replay import ReplayGuard
from strategies.replies import check_reply
from tests.strategies.test_mutations import LAYOUT, PARAMETERS, RECIPE, REPLY, REQUEST, message_of
from trfmoe_core.errors import WireError
from trfmoe_core.wire import encode


def test_a_replay_is_one_however_its_index_is_written() -> None:
    guard = ReplayGuard()
    guard.remember("ada", REPLY)
    tree = json.loads(REPLY.index or "")
    spaced = json.dumps(tree, indent=1)
    turned = json.dumps({"version": tree["version"], "entries": tree["entries"][::-1]})
    for index in (REPLY.index, spaced, turned):
        with pytest.raises(WireError, match="replay"):
            guard.check("ada", REPLY.model_copy(update={"index": index}))
    guard.check("bob", REPLY)
    ReplayGuard(guard.state()).check("bob", REPLY)
    with pytest.raises(WireError, match="replay"):
        ReplayGuard(guard.state()).check("ada", REPLY)


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
