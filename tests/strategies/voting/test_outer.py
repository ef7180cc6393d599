"""The outer step against torch's own optimizer."""

import torch

from strategies.voting.outer import OuterOptimizer
from trfmoe_core.config import OuterConfig


def test_average_adds_the_update() -> None:
    blocks = {"trunk": torch.tensor([1.0, 2.0])}
    OuterOptimizer(OuterConfig()).step(blocks, "trunk", torch.tensor([0.5, -1.0]))
    assert torch.equal(blocks["trunk"], torch.tensor([1.5, 1.0]))


def test_nesterov_equals_torch_sgd() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    reference = torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([reference], lr=0.7, momentum=0.9, nesterov=True)
    blocks = {"trunk": start.clone()}
    outer = OuterOptimizer(OuterConfig(optimizer="nesterov", learning_rate=0.7, momentum=0.9))
    for _ in range(4):
        update = torch.randn(5, generator=generator)
        reference.grad = -update
        sgd.step()
        outer.step(blocks, "trunk", update)
        torch.testing.assert_close(blocks["trunk"], reference.detach(), rtol=1e-6, atol=1e-6)
    resumed = OuterOptimizer(outer.config, outer.momentum)
    assert torch.equal(resumed.momentum["trunk"], outer.momentum["trunk"])
