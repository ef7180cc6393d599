"""AdamW block by block: what torch's own does, and experts that rest."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trfmoe_core.config import TrainingConfig
from trfmoe_core.errors import RunError
from trfmoe_core.training.optimizers.adamw import BlockAdamW

CONFIG = TrainingConfig.model_validate({"learning_rate": 0.01, "min_learning_rate": 0.0, "weight_decay": 0.1})
STACK = "layers.0.experts.w_down_EDF"


def make_parameters() -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"head.weight": (5, 4), "norm.weight": (4,), STACK: (3, 4, 6)}
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in shapes.items()}


def set_gradients(parameters: dict[str, nn.Parameter], number: int) -> None:
    draw = torch.Generator().manual_seed(100 + number)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


def test_it_is_torchs_adamw_where_nobody_rests() -> None:
    ours, theirs = make_parameters(), make_parameters()
    optimizer = BlockAdamW(ours, CONFIG)
    matrices = {"params": [p for p in theirs.values() if p.ndim >= 2], "weight_decay": 0.1}
    vectors = {"params": [p for p in theirs.values() if p.ndim < 2], "weight_decay": 0.0}
    reference = torch.optim.AdamW([matrices, vectors], lr=0.01, betas=(CONFIG.beta1, CONFIG.beta2))
    for number in range(4):
        set_gradients(ours, number)
        set_gradients(theirs, number)
        optimizer.step(0.01)
        reference.step()
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-6, atol=1e-7)
        assert parameter.grad is None


def test_an_expert_without_tokens_does_not_move_and_does_not_age() -> None:
    """Neither decay nor momentum moves it, and later it goes on as if the pause had not been."""
    paused, busy = make_parameters(), make_parameters()
    with_pause, without = BlockAdamW(paused, CONFIG), BlockAdamW(busy, CONFIG)
    for number in range(4):
        resting = number in (1, 2)
        set_gradients(paused, number)
        before = paused[STACK].detach().clone()
        with_pause.step(0.01, {"layers.0.experts.1"} if resting else ())
        moved = (paused[STACK] != before).flatten(1).any(dim=1).tolist()
        assert moved == [True, not resting, True]
        if not resting:
            set_gradients(busy, number)
            without.step(0.01)
    assert torch.equal(paused[STACK][1], busy[STACK][1])
    state = with_pause.state()
    assert {key: int(value) for key, value in state.items() if key.startswith("updates.")} == {
        "updates.layers.0.experts.0": 4,
        "updates.layers.0.experts.1": 2,
        "updates.layers.0.experts.2": 4,
        "updates.trunk": 4,
    }


def test_a_block_without_state_starts_fresh_and_foreign_blocks_are_dropped() -> None:
    first, second, fresh = make_parameters(), make_parameters(), make_parameters()
    optimizer = BlockAdamW(first, CONFIG)
    set_gradients(first, 0)
    optimizer.step(0.01)
    gone = ("layers.0.experts.2", "w_down_EDF.2")
    state: dict[str, Tensor] = {key: value for key, value in optimizer.state().items() if not key.endswith(gone)}
    state["updates.layers.7.experts.0"] = torch.tensor(3)
    state["exp_avg.layers.7.experts.w_down_EDF.0"] = torch.zeros(2)
    later, anew = BlockAdamW(second, CONFIG), BlockAdamW(fresh, CONFIG)
    later.load_state(state)
    assert later.state().keys() == {key for key in state if ".layers.7." not in key}
    for target, other in ((second, later), (fresh, anew)):
        set_gradients(target, 1)
        other.step(0.01)
    assert torch.equal(second[STACK][2], fresh[STACK][2])
    assert not torch.equal(second[STACK][1], fresh[STACK][1])


def test_frozen_parameters_have_no_state_and_stay() -> None:
    parameters = make_parameters()
    parameters["head.weight"].requires_grad_(False)
    optimizer = BlockAdamW(parameters, CONFIG)
    before = parameters["head.weight"].clone()
    set_gradients(parameters, 0)
    optimizer.step(0.01)
    assert torch.equal(parameters["head.weight"], before)
    assert not any("head" in key for key in optimizer.state())


def test_state_of_another_shape_is_refused() -> None:
    optimizer = BlockAdamW(make_parameters(), CONFIG)
    broken: dict[str, Any] = {"updates.trunk": torch.tensor(1), "exp_avg.head.weight": torch.zeros(3, 3)}
    with pytest.raises(RunError, match=r"exp_avg\.head\.weight is of shape \(3, 3\), the model needs \(5, 4\)"):
        optimizer.load_state(broken)


def test_state_follows_an_expert_to_another_place_in_the_stack() -> None:
    """A node that holds other experts than before keeps the moments of those that stayed."""
    numbers = {"before": (1, 4), "after": (4, 6)}

    def make(name: str) -> tuple[dict[str, nn.Parameter], BlockAdamW]:
        parameters = {STACK: nn.Parameter(torch.ones(2, 4, 6))}
        by_number = lambda tensors: {key: dict(zip(numbers[name], t, strict=True)) for key, t in tensors.items()}  # noqa: E731
        return parameters, BlockAdamW(parameters, CONFIG, by_number)

    parameters, before = make("before")
    set_gradients(parameters, 0)
    before.step(0.01, {"layers.0.experts.1"})
    state = {name: value.clone() for name, value in before.state().items()}
    assert {name for name in state if name.startswith("updates.")} == {"updates.layers.0.experts.4"}
    parameters, after = make("after")
    after.load_state(state)
    assert set(after.state()) == set(state)
    assert torch.equal(after.state()[f"exp_avg.{STACK}.4"], state[f"exp_avg.{STACK}.4"])
