"""The paths that only a CUDA device takes."""

import pytest
import torch
from torch import Tensor

from trfmoe_core.config import ModelConfig
from trfmoe_core.model.grouped import Backend
from trfmoe_core.model.transformer import build_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device that torch can use"),
]
CONFIG = ModelConfig.model_validate(
    {"layers": 2, "width": 128, "heads": 4, "kv_heads": 2, "experts": 8, "expert_width": 96, "context": 64}
)


def gradients(device: str, backend: Backend | None, bfloat16: bool) -> tuple[float, Tensor]:
    model = build_model(CONFIG, 256, 0).to(device)
    for layer in model.layers:
        layer.experts.backend = backend
    tokens = torch.randint(0, 256, (4, 65), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), torch.cat([grad.flatten() for grad in grads]).cpu()


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def test_float32_on_the_device_is_float32_on_the_cpu() -> None:
    loss, grads = gradients("cuda", None, bfloat16=False)
    expected_loss, expected = gradients("cpu", None, bfloat16=False)
    assert loss == pytest.approx(expected_loss, abs=1e-4)
    assert relative(grads, expected) < 1e-3


def test_the_grouped_kernel_is_as_near_to_float32_as_the_naive_products() -> None:
    _, exact = gradients("cuda", "naive", bfloat16=False)
    _, native = gradients("cuda", "native", bfloat16=True)
    _, naive = gradients("cuda", "naive", bfloat16=True)
    # A token near a router's tie may go elsewhere in bfloat16, which is rounding too.
    assert relative(native, exact) < 2 * relative(naive, exact) + 0.02 < 0.5


def test_the_step_does_not_wait_for_the_device() -> None:
    model = build_model(CONFIG, 256, 0).cuda()
    tokens = torch.zeros(2, 65, dtype=torch.int64, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        model(tokens[:, :-1], tokens[:, 1:]).loss.backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(tokens[:, :-1], tokens[:, 1:])
        finally:
            torch.cuda.set_sync_debug_mode("default")
