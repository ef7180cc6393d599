"""The bytes that a plan names are those that a federation's journal counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from scripts.planning.federation import PlannedRun
from scripts.planning.forecast import forecast
from scripts.planning.lines import forecast_lines
from scripts.planning.traffic import planned_traffic
from tests.conftest import TINY, words
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer

SMALL = {"transport": {"broadcast": "bfloat16", "difference": "int8", "updates": "int4"}}
ABSENT = {
    "experts": {"unheld": "absent"},
    "transport": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
    "model": {"layers": 1, "width": 32, "heads": 2, "experts": 9, "top_k": 2, "expert_width": 32, "context": 32},
}
FROZEN: dict[str, Any] = {
    "transport": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
    "model": {**cast("dict[str, Any]", TINY["model"]), "expert": "low_rank", "rank": 4},
    "training": {**cast("dict[str, Any]", TINY["training"]), "freeze": "base"},
}


def plan_of(recipe: Recipe) -> PlannedRun:
    rows = load_tokenizer(recipe.data.tokenizer).padded_vocab_size
    return PlannedRun(recipe, rows, {node.name: node.zone for node in recipe.nodes}, torch.device("cpu"))


def more_nodes(recipe: Recipe, tmp_path: Path, count: int) -> Recipe:
    first = recipe.nodes[0]
    nodes = []
    for number in range(count):
        folder = tmp_path / "texts" / f"n{number}"
        folder.mkdir(parents=True)
        (folder / "text.txt").write_text(words(number, 3000))
        nodes.append(first.model_copy(update={"name": f"n{number}", "data": [str(folder)]}))
    return recipe.model_copy(update={"nodes": nodes, "num_nodes": count})


@pytest.mark.parametrize(("changes", "nodes"), [({}, 3), (SMALL, 3), (ABSENT, 9), (FROZEN, 3)])
def test_bytes_of_every_round_within_two_percent(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, changes: dict[str, Any], nodes: int
) -> None:
    recipe = tiny_recipe(**changes)
    if nodes != len(recipe.nodes):
        recipe = more_nodes(recipe, tmp_path, nodes)
    planned = planned_traffic(plan_of(recipe))
    _, events = run_recipe(recipe)
    rounds = of_kind(events, "round_committed")
    assert [event["bytes_down"] for event in rounds] == pytest.approx(
        [planned.first_down, planned.down, planned.down], rel=0.02
    )
    assert [event["bytes_up"] for event in rounds] == pytest.approx([planned.up] * 3, rel=0.02)
    replies = [event for event in of_kind(events, "node_reply") if event["round"] == 3]
    assert max(event["bytes_up"] for event in replies) == pytest.approx(planned.node_up, rel=0.02)
    assert max(event["bytes_down"] for event in replies) == pytest.approx(planned.node_down, rel=0.02)
    counted = sum(event["bytes_down"] + event["bytes_up"] for event in rounds)
    assert planned.total == pytest.approx(counted + planned.down, rel=0.02)


def test_low_rank_experts_of_a_large_model_take_less_than_a_hundredth_of_fedavg() -> None:
    sizes = {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "expert_width": 8192, "tie_embeddings": True}
    model = {**sizes, "vocab_size": 128256, "expert": "low_rank", "rank": 16}
    transport = {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"}
    recipe = Recipe.model_validate({"model": model, "training": {"freeze": "base"}, "transport": transport})
    run = PlannedRun(recipe, 128256, dict.fromkeys("abc"), torch.device("cuda"))
    assert 1.2e9 < run.frozen_parameters < 1.3e9
    planned = planned_traffic(run)
    # A row of 16 values in int8 has a scale of four bytes.
    assert planned.node_down + planned.node_up == pytest.approx(2 * 20 / 16 * run.trained_parameters, rel=0.02)
    assert planned.fedavg_share < 0.01 and planned.full_share < 0.002
    told = list(forecast_lines(forecast(run, None, None, None)))
    assert any("0.93% of FedAvg" in line and "0.17% of it with full experts" in line for line in told), told
    assert any("38M of them trained; a node gets the others once, 4.95 GB" in line for line in told), told
