"""A forecast's numbers: parameters as in the built model, times as products, disk as it is taken."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.planning.federation import PlannedRun
from scripts.planning.forecast import forecast
from scripts.planning.lines import duration, forecast_lines
from scripts.planning.speed import STEPS, measure_speed
from tests.federation import run_recipe
from tests.scripts.planning.test_traffic import plan_of
from trfmoe_core.config import Recipe
from trfmoe_core.model.transformer import build_model

CPU = torch.device("cpu")


def test_parameters_are_those_of_the_built_model() -> None:
    for tied in (False, True):
        recipe = Recipe.model_validate({"model": {"tie_embeddings": tied}, "data": ["x"]})
        run = PlannedRun(recipe, 512, {}, CPU)
        model = build_model(recipe.model, 512, 0)
        assert run.parameters == run.node_parameters == sum(values.numel() for values in model.parameters())
        expert = 3 * 128 * 176
        unused = 4 * 6 * expert + (0 if tied else 512 * 128)
        assert run.active_parameters == run.parameters - unused


def test_times_follow_from_rate_and_bandwidth() -> None:
    run = PlannedRun(Recipe(), 256, {f"n{number}": None for number in range(3)}, CPU)
    found = forecast(run, None, 1000.0, 80.0)
    assert found["tokens_round"] == 25 * 12 * 128
    assert found["tokens_all"] == 3 * 12 * found["tokens_round"]
    assert found["seconds_training"] == pytest.approx(found["tokens_round"] / 1000 + 16384 / 3000)
    assert found["seconds_sending"] == pytest.approx((found["traffic"]["down"] + found["traffic"]["up"]) / 10e6)
    assert found["seconds"] == pytest.approx(12 * (found["seconds_training"] + found["seconds_sending"]))
    unknown = forecast(run, None, None, None)
    assert unknown["seconds"] is unknown["seconds_sending"] is None
    told = "\n".join(forecast_lines(unknown))
    assert "--measure trains a few steps here" in told
    assert "--bandwidth states it" in told


def test_a_gpu_that_is_not_here_can_be_planned_for() -> None:
    training = {"precision": "bfloat16"}
    run = PlannedRun(Recipe.model_validate({"training": training}), 256, dict.fromkeys("abc"), torch.device("cuda"))
    found = forecast(run, None, None, None)
    assert set(found["memory_gpu"]) >= {"weights", "moments", "gradients", "activations"}
    assert "of a node's GPU" in "\n".join(forecast_lines(found))


def test_a_run_on_one_machine_knows_its_length_unless_it_counts_epochs() -> None:
    recipe = Recipe.model_validate({"data": ["x"], "training": {"steps": 200}, "local": {"evaluate_every": 100}})
    found = forecast(PlannedRun(recipe, 256, {}, CPU), None, 500.0, None)
    assert found["seconds"] == pytest.approx(200 * 12 * 128 / 500 + 3 * 16384 / 1500)
    epochs = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": None, "epochs": 2.0})})
    found = forecast(PlannedRun(epochs, 256, {}, CPU), None, 500.0, None)
    assert found["seconds"] is found["steps"] is None
    assert "known once the text is prepared" in "\n".join(forecast_lines(found))


def test_the_disk_holds_what_a_run_leaves(tiny_recipe: Callable[..., Recipe]) -> None:
    transport = {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"}
    recipe = tiny_recipe(transport=transport, outer={"optimizer": "nesterov", "learning_rate": 0.7})
    found = forecast(plan_of(recipe), None, None, None)
    folder, _ = run_recipe(recipe)
    checkpoints = sum(path.stat().st_size for path in folder.checkpoints_path.rglob("*") if path.is_file())
    assert 0.4 * found["disk_coordinator_bytes"] < checkpoints < found["disk_coordinator_bytes"] + 100_000
    states = Path(recipe.nodes[0].state_dir or "")
    state = sum(path.stat().st_size for path in states.rglob("*") if path.is_file()) / len(recipe.nodes)
    assert 0.3 * found["disk_node_bytes"] < state < found["disk_node_bytes"] + 200_000


def test_the_measured_speed_is_that_of_real_steps(tiny_recipe: Callable[..., Recipe]) -> None:
    speed = measure_speed(plan_of(tiny_recipe()))
    assert STEPS > 1
    assert 10 < speed.tokens_per_s < 1e7
    assert speed.evaluation_tokens_per_s > 10
    assert speed.peak_memory_bytes > 1e8


def test_durations() -> None:
    assert [duration(value) for value in (0.5, 59, 3599, 12_000, 400_000)] == [
        "0.5 s",
        "59 s",
        "1 h 0 min",
        "3 h 20 min",
        "4 days 15 h",
    ]
