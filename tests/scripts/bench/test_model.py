"""What `trfmoe bench model` counts and shows; its times decide no test."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from scripts.bench import model
from scripts.bench.training import cuda
from scripts.bench.training.cuda import SHAPES, VOCAB, mfu, table
from scripts.bench.training.machine import all_parameters, floor_ms, machine
from scripts.bench.training.steps import KINDS, active_parameters, best_ms, cpu_step, make_model
from tests.places import ROOT
from trfmoe_core.config import ModelConfig

SMALL = ModelConfig.model_validate(
    {"layers": 1, "width": 32, "heads": 2, "experts": 4, "top_k": 2, "expert_width": 16, "context": 8}
)
KEYS = {
    "vs_transformers_eager",
    "vs_dense_eager",
    "vs_transformers_bfloat16",
    "vs_dense_bfloat16",
    "bfloat16_over_float32",
}


def test_counted_parameters_are_the_models() -> None:
    made = make_model(SMALL, 64, torch.device("cpu"), dense=False)
    matrices = sum(parameter.numel() for parameter in made.parameters() if parameter.ndim > 1)
    assert all_parameters(SMALL, 64) == matrices
    dense = make_model(SMALL, 64, torch.device("cpu"), dense=True)
    per_token = sum(parameter.numel() for parameter in dense.parameters() if parameter.ndim > 1) - 64 * SMALL.width
    # The dense model has equal active work, but for the router.
    assert active_parameters(SMALL, 64) == per_token + SMALL.experts * SMALL.width


@pytest.mark.parametrize("size", SHAPES)
def test_the_models_of_the_cuda_table_have_the_size_of_their_names(size: str) -> None:
    config = ModelConfig.model_validate({**SHAPES[size], "context": 1024})
    assert active_parameters(config, VOCAB) == pytest.approx(1e6 * int(size.removesuffix("M")), rel=0.02)


def test_mfu_is_one_at_the_peak() -> None:
    config = ModelConfig.model_validate({**SHAPES["125M"], "context": 1024})
    flops = 6 * active_parameters(config, VOCAB) + 6 * 12 * 1024 * 768
    assert mfu(config, cuda.PEAK_FLOPS / flops) == pytest.approx(1.0)


def test_the_floor_falls_with_the_rate() -> None:
    slow, fast = (floor_ms(SMALL, 64, 10_000, gflops) for gflops in (1.0, 1000.0))
    assert slow > 6 * active_parameters(SMALL, 64) * 10_000 / 1e6 > fast > 0


def test_small_steps_of_every_kind_give_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "CPU_CONFIG", SMALL)
    monkeypatch.setattr(model, "CPU_VOCAB", 64)
    monkeypatch.setattr(model, "CPU_BATCH", 2)
    found = model._compared("eager", 1)
    assert found.keys() >= KEYS
    assert found["bfloat16_over_float32"] == pytest.approx(found["ours_eager_ms"] / found["ours_bfloat16_ms"], rel=0.2)
    shares = model.bench_optimizer(torch.float32, 2)
    assert 0 < shares["clip_share"] < 1 and 0 < shares["optimizer_share"] < 1
    facts = machine()
    assert set(facts["gflops"]) == {"float32", "bfloat16"} and min(facts["gflops"].values()) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_measured_step_changes_the_weights(kind: str, dtype: torch.dtype) -> None:
    tokens = torch.randint(0, 64, (2, SMALL.context + 1), generator=torch.Generator().manual_seed(0))
    made: list[torch.nn.Module] = []
    original = torch.optim.AdamW.__init__

    def noted(self: Any, parameters: Any, *args: Any, **kwargs: Any) -> None:
        listed = list(parameters)
        made.extend(listed)
        original(self, listed, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "__init__", noted)
        step = cpu_step(kind, SMALL, 64, tokens, dtype)
    before = [parameter.detach().clone() for parameter in made]  # type: ignore[attr-defined]
    assert best_ms({kind: step}, 1)[kind] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, made, strict=True))


def test_the_table_shows_what_was_skipped() -> None:
    ours = {"tokens_per_s": 1000, "mfu": 0.4, "peak_gib": 10.0}
    row = {"model": "125M", "context": 1024, "mode": "eager", "moe": ours, "dense": {"skipped": "out of memory"}}
    lines = table([{**row, "share_of_dense": None}])
    assert lines[2] == "| 125M | 1024 | eager | 1000 | 0.4 | out of memory |  |  | 10.0 |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")


def test_the_cuda_part_runs_without_flower_and_transformers() -> None:
    code = (
        "import sys, json\n"
        "for name in ('flwr', 'ray', 'transformers', 'datasets', 'pyarrow'): sys.modules[name] = None\n"
        "import scripts.bench.model as model\n"
        "model.main(cuda_only=True, as_json=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["torch"] == torch.__version__
