"""A dense model becomes a mixture that computes the same before its first step."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.trfmoe_core.model.stock.families.test_families import StubTokenizer, difference, make
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.merging import merged
from trfmoe_core.model.stock.exporting import export_model
from trfmoe_core.model.stock.importing import import_model
from trfmoe_core.model.stock.upcycling import Upcycling

PLANS = [
    Upcycling(),
    Upcycling(experts=4, top_k=1),
    Upcycling(experts=8, top_k=4, slices=4),
    Upcycling(experts=8, top_k=4, slices=2),
    Upcycling(experts=4, top_k=2, shared=True),
    Upcycling(experts=4, top_k=2, slices=2, shared=True),
    Upcycling(experts=4, top_k=2, low_rank=4),
    Upcycling(experts=4, top_k=1, low_rank=4, alpha=1.0, shared=True),
]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "olmo2"])
@pytest.mark.parametrize("plan", PLANS)
def test_step_0_computes_what_the_dense_model_computes(family: str, plan: Upcycling, tmp_path: Path) -> None:
    theirs = make(tmp_path, family, {})
    ours = import_model(tmp_path, upcycling=plan)
    assert (ours.config.experts, ours.config.top_k) == (plan.experts, plan.top_k)
    assert difference(theirs, ours) <= 1e-4
    counts = ours(torch.arange(32)[None] % 64).expert_counts_LE
    assert (counts > 0).sum() > plan.top_k * 2  # the router sends tokens to different experts


def test_an_upcycled_qwen2_goes_out_with_its_shared_expert(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    make(tmp_path / "in", "qwen2", {})
    ours = import_model(tmp_path / "in", upcycling=Upcycling(experts=4, top_k=2, shared=True))
    stub: Any = StubTokenizer()
    export_model(ours, stub, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out", experts_implementation="eager", dtype=torch.float32)
    assert back.config.model_type == "qwen2_moe" and difference(back, ours) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_trained_low_rank_experts_go_out_as_full_ones(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    dense = make(tmp_path / "in", family, {})
    ours = import_model(tmp_path / "in", upcycling=Upcycling(experts=4, low_rank=4))
    with torch.no_grad():
        for name, weights in ours.named_parameters():
            if ".experts.b_" in name:
                weights.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    assert difference(dense, ours) > 1e-3
    full, stub = merged(ours), StubTokenizer()
    export_model(full, cast("Any", stub), tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out", experts_implementation="eager", dtype=torch.float32)
    assert difference(back, ours) <= 1e-5
    again = import_model(tmp_path / "out")
    for name, weights in again.named_parameters():
        assert torch.equal(weights, full.get_parameter(name))


def test_noise_and_new_neurons_change_what_they_say(tmp_path: Path) -> None:
    make(tmp_path, "llama", {})
    plain = dict(import_model(tmp_path, upcycling=Upcycling()).named_parameters())
    noisy = dict(import_model(tmp_path, upcycling=Upcycling(noise=0.1)).named_parameters())
    stack = "layers.0.experts.w_gate_up_EGD"
    share = (noisy[stack] - plain[stack]).std() / plain[stack].std()
    assert 0.09 < share < 0.11 and torch.equal(noisy["embedding.weight"], plain["embedding.weight"])

    fresh = dict(import_model(tmp_path, upcycling=Upcycling(reinitialise=0.25)).named_parameters())
    changed_rows = (fresh[stack] != plain[stack]).any(dim=2)  # E, 2F
    changed_columns = (fresh["layers.0.experts.w_down_EDF"] != plain["layers.0.experts.w_down_EDF"]).any(dim=1)
    assert torch.equal(changed_rows[:, :48], changed_columns) and torch.equal(changed_rows[:, 48:], changed_columns)
    assert (changed_columns.sum(dim=1) == 12).all() and not torch.equal(changed_columns[0], changed_columns[1])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"experts": 8, "slices": 3}, "--slices 3 does not divide --experts 8"),
        ({"experts": 8, "top_k": 3, "slices": 2}, "--top-k 3: .* a multiple of 2 up to 8"),
        ({"top_k": 9}, "--top-k 9"),
        ({"noise": 2.0}, "--noise 2.0 must be from 0 to 1"),
        ({"low_rank": 4, "noise": 0.1}, "--low-rank 4: .* no --slices, --noise or --reinitialise"),
        ({"alpha": 4.0}, "--alpha 4.0 is of low-rank experts"),
    ],
)
def test_plans_that_cannot_work_are_refused(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Upcycling(**plan)


def test_slices_that_do_not_divide_the_network_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "llama", {})
    with pytest.raises(ConfigError, match="--slices 5 does not divide the dense network's width 48"):
        import_model(tmp_path, upcycling=Upcycling(experts=10, top_k=5, slices=5))
