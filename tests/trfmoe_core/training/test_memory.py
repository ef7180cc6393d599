"""The estimate of the memory that training takes."""

import torch

from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.training.memory import TrainingMemory, free_memory, training_memory

SHAPE = ModelConfig(layers=4, width=64, heads=4, experts=4, expert_width=96, context=256)


def estimate(model: ModelConfig = SHAPE, **training: object) -> TrainingMemory:
    settings = TrainingConfig.model_validate({"batch_size": 8, "precision": "float32", **training})
    return training_memory(model, settings, 320, torch.device("cpu"))


def test_weights_gradients_and_moments_are_four_numbers_a_parameter() -> None:
    found = estimate()
    tables = 256 * 16 * 4
    assert found.gradients == found.weights - tables
    assert found.moments == 2 * found.gradients
    assert estimate(optimizer="muon").moments < found.moments
    assert found.peak >= found.program + found.weights + found.moments + found.gradients + found.activations


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing() -> None:
    one, two = estimate(batch_size=4), estimate(batch_size=8)
    assert 1.9 < two.activations / one.activations < 2.1
    assert estimate(gradient_checkpointing=True).activations < 0.75 * two.activations
    long = estimate(SHAPE.model_copy(update={"context": 2048}))
    assert 7.5 < long.activations / two.activations < 8.5
    assert estimate(SHAPE.model_copy(update={"document_mask": True})).activations > two.activations


def test_the_longest_context_costs_no_memory_to_estimate() -> None:
    huge = ModelConfig(width=65536, heads=1, context=1048576)
    assert estimate(huge).peak > 1e15 / 1000
    assert 0 < free_memory(torch.device("cpu"))[0] < 1e15
