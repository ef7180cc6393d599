"""Kinds of experts and attentions: registered in one file, such as this one, and chosen by name in the recipe."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.attention import ATTENTIONS, Attention
from trfmoe_core.model.experts import EXPERTS, Experts, Multiply
from trfmoe_core.model.experts.gelu import GELUExperts
from trfmoe_core.model.moe import mix_experts
from trfmoe_core.model.stock.exporting import stock_config
from trfmoe_core.model.transformer import build_model

VOCAB = 40


@EXPERTS.register("test-squared-relu")
class SquaredReLUExperts(Experts):
    """`down(relu(up(x))^2)` (arXiv 2109.08668)."""

    @staticmethod
    def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
        return {"w_up_EFD": (config.expert_width, config.width), "w_down_EDF": (config.width, config.expert_width)}

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        return multiply(nnf.relu(multiply(x_SD, "w_up_EFD")).square(), "w_down_EDF")


@ATTENTIONS.register("test-neighbour")
class NeighbourAttention(Attention):
    """Sees itself and the token before."""

    def forward(self, x_BTD: Tensor, cos_TP: Tensor, sin_TP: Tensor, *given: Any) -> Tensor:
        length = x_BTD.shape[1]
        near_TT = torch.ones(length, length, dtype=torch.bool).tril().triu(-1)
        return super().forward(x_BTD, cos_TP, sin_TP, None, near_TT)


def make_config(**changes: Any) -> ModelConfig:
    base = {"layers": 2, "width": 32, "heads": 4, "experts": 4, "expert_width": 24, "context": 16, "init_std": 0.1}
    return ModelConfig.model_validate({**base, **changes})


def draw_tokens() -> Tensor:
    return torch.randint(0, VOCAB, (4, 17), generator=torch.Generator().manual_seed(0))


def losses_of_training(config: ModelConfig, steps: int = 30) -> list[float]:
    model = build_model(config, VOCAB, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens, losses = draw_tokens(), []
    for _ in range(steps):
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("expert", ["gelu", "test-squared-relu"])
def test_another_kind_of_expert_is_chosen_by_name_and_learns(expert: str) -> None:
    config = make_config(expert=expert)
    model = build_model(config, VOCAB, 0)
    assert model.layers[0].experts.get_parameter("w_up_EFD").shape == (4, 24, 32)
    blocks = BlockLayout.of(dict(model.named_parameters()))
    assert blocks.specs["layers.1.experts.3"].numel == 2 * 24 * 32
    std = model.layers[0].experts.get_parameter("w_down_EDF").std().item()
    assert std == pytest.approx(0.1 / 2, rel=0.1)
    losses = losses_of_training(config)
    assert losses[-1] < losses[0] - 0.5


def test_gelu_experts_compute_what_they_say() -> None:
    config = make_config(expert="gelu", top_k=1, experts=1)
    model = build_model(config, VOCAB, 0)
    experts = model.layers[0].experts
    assert isinstance(experts, GELUExperts)
    x = torch.randn(9, 32)
    by_hand = nnf.gelu(x @ experts.w_up_EFD[0].T) @ experts.w_down_EDF[0].T
    torch.testing.assert_close(mix_experts(x, model.layers[0].router, experts)[0], by_hand)


@pytest.mark.parametrize("attention", ["normed", "test-neighbour"])
def test_another_attention_is_chosen_by_name_and_learns(attention: str) -> None:
    losses = losses_of_training(make_config(attention=attention, kv_heads=2))
    assert losses[-1] < losses[0] - 0.5


def test_the_other_attentions_are_other_functions() -> None:
    tokens = draw_tokens()[:, :-1]
    far = tokens.clone()
    far[:, 0] = (far[:, 0] + 1) % VOCAB
    neighbour = build_model(make_config(attention="test-neighbour"), VOCAB, 0)
    assert torch.equal(neighbour(tokens).logits_BTV[:, 3:], neighbour(far).logits_BTV[:, 3:])
    normed = build_model(make_config(attention="normed"), VOCAB, 0)
    before = normed(tokens).logits_BTV
    with torch.no_grad():  # Norms take out what scales queries and keys.
        for layer in normed.layers:
            layer.attention.qkv.weight[: 2 * 32] *= 3.0
    torch.testing.assert_close(normed(tokens).logits_BTV, before, rtol=1e-3, atol=1e-4)


def test_unknown_kinds_and_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.expert: 'magic' is unknown; choose one of gelu, .*swiglu"):
        build_model(make_config(expert="magic"), VOCAB, 0)
    with pytest.raises(
        ConfigError, match=r"model\.attention: 'magic' is unknown; choose one of normed, normed_whole, rotary"
    ):
        build_model(make_config(attention="magic"), VOCAB, 0)
    with pytest.raises(ConfigError, match=r"model\.expert: two parts are called 'gelu'"):
        EXPERTS.register("gelu")(SquaredReLUExperts)


NEW_FILE = """
from trfmoe_core.model.attention import ATTENTIONS, Attention


@ATTENTIONS.register("doubled")
class Doubled(Attention):
    def prepare(self, q_BTHC, k_BTJC):
        return 2 * q_BTHC, k_BTJC
"""

USE = """
import sys
import trfmoe_core.model.attention as folder

folder.__path__.append(sys.argv[1])

from trfmoe_core.config import ModelConfig
from trfmoe_core.model.transformer import build_model

model = build_model(ModelConfig(layers=1, attention="doubled"), 64, 0)
print(type(model.layers[0].attention).__name__)
"""


def test_a_file_in_the_folder_is_all_that_a_new_kind_needs(tmp_path: Path) -> None:
    (tmp_path / "doubled.py").write_text(NEW_FILE)
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Doubled"


@pytest.mark.parametrize("changes", [{"expert": "gelu"}, {"attention": "normed", "norm_position": "after"}])
def test_what_no_stock_architecture_has_is_not_exported(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no stock architecture has all parts.*MixtralForCausalLM has only"):
        stock_config(make_config(**changes), VOCAB)
