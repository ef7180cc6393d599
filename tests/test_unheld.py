"""What nodes do with experts that they do not hold, from the coordinator to the model and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from server.run_folder.recorder import last_checkpoint
from strategies.exchange.messages import TrainReply, read_header
from tests.conftest import words
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.errors import PlacementError
from trfmoe_core.model.transformer import MoETransformer

MODES: list[dict[str, Any]] = [
    {"unheld": "train"},
    {"unheld": "freeze"},
    {"unheld": "absent"},
    {"unheld": "absent", "absent_routing": "skip"},
]
ROUNDS, NODES, EXPERTS = 4, 6, 8


@pytest.fixture
def six_nodes(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Returns a maker of recipes in which a node holds four of eight experts a layer."""

    def make(nodes: int = NODES, **changes: Any) -> Recipe:
        recipe = tiny_recipe()
        model = recipe.model.model_dump() | {"experts": EXPERTS, "expert_width": 16}
        folders = []
        for number in range(nodes):
            folder = tmp_path / "texts" / f"node{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "text.txt").write_text(words(number, 3000))
            folders.append({"name": f"node{number}", "data": [str(folder)], "state_dir": str(tmp_path / "state")})
        rounds = recipe.rounds.model_dump() | {"num_rounds": ROUNDS, "local_steps": 6}
        return tiny_recipe(**{"nodes": folders, "num_nodes": nodes, "model": model, "rounds": rounds, **changes})

    return make


@pytest.mark.parametrize("experts", MODES, ids=lambda mode: "-".join(mode.values()))
def test_it_learns_and_only_what_is_held_is_sent(experts: dict[str, Any], six_nodes: Callable[..., Recipe]) -> None:
    sent: dict[tuple[str, int], set[str]] = {}

    def watch(node_id: int, reply: Message) -> Message:
        if not reply.has_error() and reply.metadata.message_type == "train":
            header = read_header(reply, TrainReply)
            assert header.error is None
            entries = json.loads(header.index or "")["entries"]
            sent[header.name, header.round] = {entry["block"] for entry in entries}
        return reply

    folder, events = run_recipe(six_nodes(experts=experts), watch)
    assert of_kind(events, "run_finished")[-1]["outcome"] == "completed"
    losses = [event["loss"] for event in of_kind(events, "evaluated")]
    assert len(losses) == ROUNDS + 1 and losses[-1] < losses[0] - 0.5
    placement = of_kind(events, "placement")[-1]
    for (name, _), blocks in sent.items():
        assert blocks == {block for block, names in placement["holders"].items() if name in names}
    assert {event["experts"] for event in of_kind(events, "evaluated")} == {
        "held" if experts["unheld"] == "absent" else "all"
    }

    replies = of_kind(events, "node_reply")
    assert {reply["status"] for reply in replies} == {"accepted"}
    whole = max(reply["bytes_down"] for reply in replies)
    model_bytes = 4 * of_kind(events, "run_started")[0]["parameters"]
    if experts["unheld"] == "absent":
        assert whole < 0.8 * model_bytes
        assert any("only the experts that the node holds" in event["text"] for event in of_kind(events, "warning"))
    else:
        assert whole > model_bytes
    checkpoint = last_checkpoint(folder)
    assert checkpoint and checkpoint.weights["layers.0.experts.w_down_EDF"].shape[0] == EXPERTS


def test_too_few_experts_for_so_many_nodes_is_said_before_the_first_round(six_nodes: Callable[..., Recipe]) -> None:
    recipe = six_nodes(nodes=NODES, experts={"unheld": "absent"})
    few = recipe.model.model_copy(update={"experts": 3})
    with pytest.raises(PlacementError, match=r"3 experts with 3 replicas are 9 seats, but 2 on each of 6 nodes are 12"):
        run_recipe(recipe.model_copy(update={"model": few}))


def test_what_a_node_holds_travels_as_differences(six_nodes: Callable[..., Recipe]) -> None:
    transport = {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"}
    _, events = run_recipe(six_nodes(experts={"unheld": "absent"}, transport=transport))
    _, plain = run_recipe(six_nodes(experts={"unheld": "absent"}))
    assert {reply["status"] for reply in of_kind(events, "node_reply")} == {"accepted"}
    losses, expected = ([event["loss"] for event in of_kind(run, "evaluated")] for run in (events, plain))
    assert losses == pytest.approx(expected, rel=0.01)
    first, *later = [event["bytes_down"] for event in of_kind(events, "round_committed")]
    assert max(later) < 0.8 * first
    assert 3 * max(later) < min(event["bytes_down"] for event in of_kind(plain, "round_committed"))


@pytest.mark.parametrize("routing", ["restrict", pytest.param("skip", marks=pytest.mark.slow)])
def test_the_balance_loss_keeps_experts_alive_where_others_are_absent(
    routing: str, six_nodes: Callable[..., Recipe]
) -> None:
    def dead(balance_weight: float) -> int:
        recipe = six_nodes(experts={"unheld": "absent", "absent_routing": routing}, name=f"balance-{balance_weight}")
        changes = {
            "model": recipe.model.model_copy(update={"balance_weight": balance_weight}),
            "rounds": recipe.rounds.model_copy(update={"num_rounds": 8, "local_steps": 10}),
        }
        recipe = recipe.model_copy(update=changes)
        checkpoint = last_checkpoint(run_recipe(recipe)[0])
        assert checkpoint is not None
        whole = MoETransformer(recipe.model, checkpoint.weights["embedding.weight"].shape[0])
        whole.load_state_dict(checkpoint.weights)
        tokens = torch.tensor(list(words(99, 4000).encode())[: 64 * 33]).view(64, 33)
        counts_LE = whole(tokens[:, :-1]).expert_counts_LE
        return int((counts_LE < 0.01 * counts_LE.sum(dim=1, keepdim=True)).sum())

    assert dead(0.01) == 0
    assert dead(0.0) >= 2
