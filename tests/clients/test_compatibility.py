"""One release, one tokenizer, one version of the wire: whoever has another is refused, and both logs say why."""

import json
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Message

from strategies.exchange.messages import PROTOCOL, DescribeRequest, Description
from strategies.membership.compatibility import disagreement
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe

A, B = "a" * 64, "b" * 64


def edited(message: Message, **changes: object) -> Message:
    record = message.content["header"]
    assert isinstance(record, ConfigRecord)
    record["json"] = json.dumps({**json.loads(str(record["json"])), **changes})
    return message


def with_fourth(recipe: Recipe) -> Recipe:
    fourth = recipe.nodes[0].model_copy(update={"name": "dee"})
    return recipe.model_copy(update={"nodes": [*recipe.nodes, fourth], "num_nodes": 4})


def test_what_both_sides_compare() -> None:
    request = DescribeRequest(run_id="r", recipe={}, code_fingerprint=A, tokenizer_fingerprint=A)
    same = Description(name="n", code_fingerprint=A, tokenizer_fingerprint=A, versions={})
    assert disagreement(request, same) is None
    code = disagreement(request, same.model_copy(update={"code_fingerprint": B}))
    assert code is not None
    assert all(words in code for words in ("code bbbb", "coordinator's aaaa", "one release"))
    for other in (B, None):
        tokens = disagreement(request, same.model_copy(update={"tokenizer_fingerprint": other}))
        assert tokens is not None
        assert "tokenizer" in tokens
        assert "copy" in tokens


def test_a_node_refuses_another_release(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.tri_redundant.code_fingerprint", lambda: B)
    with pytest.raises(Exception, match="0 of 3 nodes"):
        run_recipe(tiny_recipe(rounds={"nodes_deadline_s": 1.0, "reply_deadline_s": 3.0}))
    assert caplog.text.count("differs from the coordinator's bbbbbbbbbbbb") >= 3


def test_another_version_of_the_wire_is_named(tiny_recipe: Callable[..., Recipe]) -> None:
    def tamper(node: int, message: Message) -> Message:
        return edited(message, protocol=PROTOCOL + 7, future="field") if node == 3 else message

    _, events = run_recipe(with_fourth(tiny_recipe()), tamper)
    reasons = [event["reason"] for event in of_kind(events, "node_refused")]
    assert len(reasons) == 1
    assert f"version {PROTOCOL + 7} of the wire, this one {PROTOCOL}" in reasons[0]
