"""The outer step against torch's own optimizer."""

import pytest
import torch

from strategies.outer.optimizer import outer_optimizer
from trfmoe_core.config import OuterConfig
from trfmoe_core.errors import ConfigError


def test_average_adds_the_update() -> None:
    blocks = {"trunk": torch.tensor([1.0, 2.0])}
    outer_optimizer(OuterConfig()).step(blocks, "trunk", torch.tensor([0.5, -1.0]))
    assert torch.equal(blocks["trunk"], torch.tensor([1.5, 1.0]))


def test_nesterov_equals_torch_sgd() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    reference = torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([reference], lr=0.7, momentum=0.9, nesterov=True)
    blocks = {"trunk": start.clone()}
    outer = outer_optimizer(OuterConfig(optimizer="nesterov", learning_rate=0.7, momentum=0.9))
    for _ in range(4):
        update = torch.randn(5, generator=generator)
        reference.grad = -update
        sgd.step()
        outer.step(blocks, "trunk", update)
        torch.testing.assert_close(blocks["trunk"], reference.detach(), rtol=1e-6, atol=1e-6)


def test_a_resumed_step_is_the_next_step() -> None:
    config = OuterConfig(optimizer="nesterov", learning_rate=0.7, momentum=0.9)
    outer, update = outer_optimizer(config), torch.tensor([1.0, -2.0])
    blocks = {"trunk": torch.zeros(2)}
    outer.step(blocks, "trunk", update)
    resumed = outer_optimizer(config, {name: values.clone() for name, values in outer.momentum.items()})
    again = {"trunk": blocks["trunk"].clone()}
    outer.step(blocks, "trunk", update)
    resumed.step(again, "trunk", update)
    assert torch.equal(again["trunk"], blocks["trunk"])
    fresh = {"trunk": torch.zeros(2)}
    outer_optimizer(config).step(fresh, "trunk", update)
    assert not torch.equal(blocks["trunk"], 2 * fresh["trunk"])


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"outer\.optimizer: 'adam' is unknown; choose one of average, nesterov"):
        outer_optimizer(OuterConfig(optimizer="adam"))
