"""The limits of an update's size: no honest node is ever refused, and what is beyond them always is."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from strategies.round.certified_size import CertifiedSize
from tests.federation import of_kind, run_recipe
from tests.strategies.round.receiver import REQUEST
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.model.transformer import parameter_shapes
from trfmoe_core.quantize import quantize, rows_of
from trfmoe_core.training.optimizers.muon import LARGEST_SINGULAR_VALUE
from trfmoe_core.training.schedule import learning_rate

BLOCKS = 2 * 4 + 1
INT8 = {"updates": "int8", "broadcast": "bfloat16", "difference": "int8"}


def refusals(events: list[dict[str, Any]]) -> list[str]:
    return [e["text"] for e in of_kind(events, "warning") if "no training by the recipe" in e["text"]]


@pytest.mark.parametrize(
    ("training", "transport"),
    [
        ({"warmup_steps": 0}, {}),
        ({"beta1": 0.95, "beta2": 0.8, "weight_decay": 1.0}, {"updates": "bfloat16", "broadcast": "bfloat16"}),
        ({"learning_rate": 0.03}, INT8),
        ({"optimizer": "muon", "precision": "bfloat16"}, {"updates": "bfloat16"}),
        ({"optimizer": "muon", "learning_rate": 0.03}, {"updates": "int4"}),
    ],
)
@pytest.mark.parametrize("local_steps", [4, {1: 1, 2: 7}, {1: 7, 3: 1}])
def test_no_honest_update_is_refused(
    tiny_recipe: Callable[..., Recipe], training: dict[str, Any], transport: dict[str, Any], local_steps: Any
) -> None:
    recipe = tiny_recipe(transport=transport)
    recipe = recipe.model_copy(update={"rounds": recipe.rounds.model_copy(update={"local_steps": local_steps})})
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
    _, events = run_recipe(recipe)
    assert len(of_kind(events, "round_committed")) == 3
    assert not refusals(events)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_none_of_ten_thousand_honest_updates_is_refused(tiny_recipe: Callable[..., Recipe]) -> None:
    draw, updates = random.Random(0), 0
    while updates < 10_000:
        training = {
            "optimizer": draw.choice(["adamw", "muon"]),
            "precision": draw.choice(["float32", "bfloat16"]),
            "learning_rate": 10 ** draw.uniform(-4, -1.3),
            "min_learning_rate": 0.0,
            "schedule": draw.choice(["cosine", "linear", "constant"]),
            "beta1": draw.choice([0.0, 0.5, 0.9, 0.99]),
            "beta2": draw.choice([0.5, 0.9, 0.95, 0.99, 0.999]),
            "weight_decay": draw.choice([0.0, 0.1, 1.0]),
            "warmup_steps": draw.choice([0, 3, 20]),
        }
        transport = {
            "updates": draw.choice(["float32", "bfloat16", "int8", "int4"]),
            "broadcast": draw.choice(["float32", "bfloat16"]),
            "difference": draw.choice([None, "bfloat16", "int8"]),
        }
        rounds = {"num_rounds": 12, "local_steps": draw.choice([1, 2, 5]), "nodes_deadline_s": 1.0}
        recipe = tiny_recipe(transport=transport, rounds=rounds, seed=updates)
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
        _, events = run_recipe(recipe)
        assert not refusals(events), (training, transport)
        updates += BLOCKS * len([e for e in of_kind(events, "node_reply") if e["status"] == "accepted"])


def last_step(recipe: Recipe) -> int:
    """Returns the number of steps after the round of `REQUEST`."""
    return recipe.rounds.steps_before(REQUEST.round) + REQUEST.steps


def weights_and_limits(recipe: Recipe) -> tuple[BlockLayout, Blocks, float]:
    """Returns a model's blocks and the sum of the learning rates of round 3."""
    layout = BlockLayout.of(parameter_shapes(recipe.model, 264))
    draw = torch.Generator().manual_seed(0)
    base = {name: torch.randn(spec.numel, generator=draw) for name, spec in layout.specs.items()}
    first = recipe.rounds.steps_before(REQUEST.round)
    return (
        layout,
        base,
        sum(learning_rate(first + i, recipe.total_steps, recipe.training) for i in range(REQUEST.steps)),
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_value_beyond_the_limit_is_found_wherever_it_is(tiny_recipe: Callable[..., Recipe], optimizer: str) -> None:
    recipe = tiny_recipe()
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"optimizer": optimizer})})
    layout, base, rates = weights_and_limits(recipe)
    check = CertifiedSize(recipe, layout)
    for block in (TRUNK, layout.experts[3]):
        for slot in layout.specs[block].slots:
            rows = check._matrices.get(slot.tensor, ())
            largest = check._optimizer.largest_step(slot.shape, rows, recipe.training, last_step(recipe))
            assert largest is not None
            place = slot.offset + slot.numel // 3
            decayed = recipe.training.weight_decay * rates * float(base[block][place].abs()) * (len(slot.shape) > 1)
            update = {block: torch.zeros(layout.specs[block].numel)}
            update[block][place] = -(largest.value * rates + decayed)
            assert check.excess(update, base, REQUEST) is None
            update[block][place] *= 1.1
            found = check.excess(update, base, REQUEST)
            assert found is not None
            assert slot.tensor in found and f"value {slot.numel // 3}" in found and f"{block!r}" in found


def test_a_matrix_of_small_values_that_all_point_one_way_is_found(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"optimizer": "muon"})})
    layout, base, rates = weights_and_limits(recipe)
    base = {name: torch.zeros_like(values) for name, values in base.items()}
    check, block = CertifiedSize(recipe, layout), layout.experts[0]
    limit = LARGEST_SINGULAR_VALUE * 0.2 * 32**0.5 * rates
    slot = layout.specs[block].slots[0]
    update = torch.zeros(layout.specs[block].numel)
    ones = torch.ones(32, 32) / 32  # one singular value, which is 1
    for factor, is_found in ((0.99, False), (1.05, True)):
        update[slot.offset : slot.offset + 32 * 32] = (factor * limit * ones).flatten()
        found = check.excess({block: update}, base, REQUEST)
        assert (found is not None) == is_found
    assert found is not None
    assert "largest singular value" in found
    orthogonal = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))[0]
    update[slot.offset : slot.offset + 32 * 32] = (0.99 * limit * orthogonal).flatten()
    assert check.excess({block: update}, base, REQUEST) is None


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_quantized_updates_at_the_limit_pass(tiny_recipe: Callable[..., Recipe], dtype: str) -> None:
    recipe = tiny_recipe(transport={"updates": dtype})
    layout, base, rates = weights_and_limits(recipe)
    check = CertifiedSize(recipe, layout)
    block = layout.experts[0]
    shapes = tuple(slot.shape for slot in layout.specs[block].slots)
    draw = torch.Generator().manual_seed(1)
    largest = check._optimizer.largest_step(shapes[0], (), recipe.training, last_step(recipe))
    assert largest is not None
    update = (2 * torch.rand(layout.specs[block].numel, generator=draw) - 1) * largest.value * rates
    assert check.excess({block: quantize(update, rows_of(shapes), dtype)}, base, REQUEST) is None
    too_large = quantize(update * (1.3 if dtype == "int8" else 3.0), rows_of(shapes), dtype)
    assert check.excess({block: too_large}, base, REQUEST) is not None
