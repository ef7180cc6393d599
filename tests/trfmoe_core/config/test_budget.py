"""How long a run is: steps, tokens, epochs or rounds, and never two of them."""

import json

import pytest

from trfmoe_core.config import Recipe, TrainingConfig, check_federated
from trfmoe_core.errors import ConfigError


def recipe(training: dict[str, object], rounds: dict[str, object]) -> Recipe:
    return Recipe.model_validate(
        {"model": {"context": 32}, "training": {"batch_size": 4, **training}, "rounds": {"local_steps": 10, **rounds}}
    )


def test_steps_and_tokens_decide_the_number_of_rounds() -> None:
    assert recipe({"steps": 95}, {}).rounds.num_rounds == 10
    assert recipe({"tokens": 4 * 32 * 95}, {}).rounds.num_rounds == 10
    assert recipe({"tokens": 4 * 32 * 95, "accumulation": 2}, {}).rounds.num_rounds == 5
    assert recipe({}, {}).rounds.num_rounds == 12
    assert recipe({"steps": 95}, {}).total_steps == 100


def test_a_recipe_that_was_written_out_reads_back_the_same() -> None:
    first = recipe({"steps": 95}, {})
    again = Recipe.model_validate(first.model_dump(mode="json"))
    assert again == first
    check_federated(again)


def test_a_schedule_of_local_steps_decides_the_number_of_rounds_too() -> None:
    plan = {"local_steps": {1: 10, 4: 25}}
    assert [recipe({"steps": steps}, plan).rounds.num_rounds for steps in (1, 30, 31, 55, 56)] == [1, 3, 4, 4, 5]
    made = recipe({"steps": 56}, plan)
    assert made.total_steps == 80
    assert Recipe.model_validate(json.loads(json.dumps(made.model_dump(mode="json")))) == made
    with pytest.raises(ConfigError, match=r"5 rounds of 10 steps, 25 from round 4 on .*num_rounds is 9"):
        check_federated(recipe({"steps": 56}, {**plan, "num_rounds": 9}))


def test_two_lengths_are_refused_where_both_count() -> None:
    check_federated(recipe({"steps": 95}, {"num_rounds": 10}))
    contradiction = recipe({"steps": 95}, {"num_rounds": 12})
    with pytest.raises(ConfigError, match=r"training\.steps: 95 make 10 rounds of 10 .*num_rounds is 12; leave one"):
        check_federated(contradiction)
    with pytest.raises(ConfigError, match=r"training\.epochs: 2, but the nodes of a federation .*num_rounds"):
        check_federated(recipe({"epochs": 2}, {}))


@pytest.mark.parametrize("both", [{"steps": 1, "tokens": 1}, {"tokens": 1, "epochs": 1.0}, {"steps": 1, "epochs": 1}])
def test_only_one_of_steps_tokens_and_epochs(both: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="each determine the length of the run; keep one of them"):
        TrainingConfig.model_validate(both)


def test_the_budget_of_one_machine_counts_all_its_devices() -> None:
    def steps(devices: int, **budget: object) -> int | None:
        config = TrainingConfig.model_validate({"batch_size": 4, "accumulation": 2, **budget})
        return config.budget(32, devices, windows_per_epoch=100)

    assert steps(1, steps=7) == steps(2, steps=7) == 7
    assert (steps(1, tokens=2561), steps(2, tokens=2561)) == (11, 6)
    assert (steps(1, epochs=1.0), steps(1, epochs=0.001), steps(2, epochs=3)) == (13, 1, 19)
    assert steps(1) is None
