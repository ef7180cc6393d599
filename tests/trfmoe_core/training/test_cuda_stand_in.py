"""The code that a CUDA device takes, on a machine without one: nothing waits for the device, nothing mixes devices."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trfmoe_core.training import cuda_stand_in
from tests.trfmoe_core.training.cuda_stand_in import CUDA, MixedDevicesError, StandIn
from tests.trfmoe_core.training.test_trainer import MODEL, VOCAB, make_config, stream
from trfmoe_core.model import grouped
from trfmoe_core.model.local_experts import LocalExperts
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training import trainer as trainer_module
from trfmoe_core.training.trainer import Trainer

SHARES: dict[str, list[LocalExperts] | None] = {
    "complete": None,
    "absent": [LocalExperts(num_experts=4, trained=(1, 3))] * 2,
    "restricted": [LocalExperts(num_experts=4, trained=(1, 3), restricted=True)] * 2,
    "frozen": [LocalExperts(num_experts=4, trained=(1, 3), frozen=(0, 2))] * 2,
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(trainer_module, "peak_memory_bytes", lambda _: 0)
    return cuda_stand_in.install(monkeypatch)


def make_trainer(share: str = "complete", **changes: Any) -> Trainer:
    """Returns a trainer of the small model on the device; its widths suit the grouped kernel."""
    config = MODEL.model_copy(update={"layers": 2, "experts": 4, "width": 32, "heads": 2, "expert_width": 16})
    model = MoETransformer(config, VOCAB, SHARES[share])
    model.init_weights(torch.Generator().manual_seed(0))
    return Trainer(model, make_config(**changes), 10, CUDA)


@pytest.mark.parametrize("share", SHARES)
def test_no_step_waits_for_the_device(device: StandIn, share: str) -> None:
    with device:
        trainer = make_trainer(share)
        batches = stream()
        trainer.train(batches, 1)
        once = len(device.waits)
        trainer.train(batches, 5)
    assert trainer.precision == torch.bfloat16
    assert trainer.step == 6
    # A call of `train` reads its means at its end, however many steps it makes.
    assert once >= 1
    assert len(device.waits) == 2 * once, device.waits


@pytest.mark.parametrize(
    "changes",
    [{"accumulation": 2}, {"gradient_checkpointing": True}, {"precision": "float32"}, {"optimizer": "muon"}],
    ids=str,
)
def test_settings_that_change_the_step_run_on_the_device(device: StandIn, changes: dict[str, Any]) -> None:
    with device:
        trainer = make_trainer(**changes)
        trainer.train(stream(), 2)
    assert trainer.step == 2
    assert all(parameter.device == CUDA and parameter.grad is None for parameter in trainer.model.parameters())


def test_bfloat16_takes_the_grouped_kernel_with_bfloat16_rows(device: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    multiply = torch.nn.functional.grouped_mm

    def noted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(x.dtype)
        return multiply(x, *args, **kwargs)

    monkeypatch.setattr(grouped.nnf, "grouped_mm", noted)
    with device:
        trainer = make_trainer()
        trainer.train(stream(), 1)
    assert seen == [torch.bfloat16] * 4  # two products a layer


def test_the_stand_in_sees_waits_and_mixed_devices(device: StandIn) -> None:
    with device:
        x = torch.ones(3, device=CUDA)
        assert x.device == CUDA and not device.waits
        assert x.sum().item() == 1.0
        x.cpu()
        assert len(device.waits) == 2
        with pytest.raises(MixedDevicesError):
            x + torch.ones(3)
        with pytest.raises(MixedDevicesError):
            torch.ones(3).copy_(x)
        assert (x + 1.0).device == CUDA
