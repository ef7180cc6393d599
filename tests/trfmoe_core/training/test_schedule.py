"""The learning rate over a run."""

from itertools import pairwise

import pytest

from trfmoe_core.config import TrainingConfig
from trfmoe_core.training.schedule import learning_rate, schedule_remarks


def make(**changes: object) -> TrainingConfig:
    base = {"learning_rate": 1.0, "min_learning_rate": 0.1, "warmup_steps": 4}
    return TrainingConfig.model_validate({**base, **changes})


def test_warm_up_rises_to_the_full_rate() -> None:
    config = make()
    assert [learning_rate(step, 100, config) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_decay_ends_at_the_least_rate_and_stays(kind: str) -> None:
    config = make(schedule=kind)
    rates = [learning_rate(step, 101, config) for step in range(130)]
    assert rates[52] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1) and rates[129] == pytest.approx(0.1)
    assert all(before >= after for before, after in pairwise(rates[4:]))


def test_constant_stays_and_short_runs_still_warm_up_and_train() -> None:
    assert learning_rate(99, 100, make(schedule="constant")) == 1.0
    short = [learning_rate(step, 6, make(warmup_steps=20)) for step in range(6)]
    assert short[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and short[-1] == pytest.approx(0.1)
    assert learning_rate(0, 1, make(warmup_steps=0)) == 1.0


@pytest.mark.parametrize(
    ("steps", "remark"),
    [
        (6, "half of the run's 6 steps; the learning rate rises until step 3 instead"),
        (1, "half of the run's 1 step; the learning rate does not rise, and begins at its full height"),
    ],
)
def test_a_warmup_longer_than_the_run_is_remarked(steps: int, remark: str) -> None:
    config = make(warmup_steps=50)
    assert any(remark in line for line in schedule_remarks(config, steps))
    assert learning_rate(0, 1, config) == config.learning_rate
