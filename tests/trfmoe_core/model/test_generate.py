"""Generation: greedy equals transformers', draws follow the seed, prompts may be long."""

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.generate import generate
from trfmoe_core.model.hf import mixtral_config, to_mixtral_state
from trfmoe_core.model.transformer import MoETransformer, build_model

CONFIG = ModelConfig.model_validate(
    {"layers": 2, "width": 32, "heads": 4, "experts": 4, "expert_width": 24, "context": 16, "init_std": 0.2}
)


@pytest.fixture
def model() -> MoETransformer:
    return build_model(CONFIG, 64, 0)


def test_greedy_is_transformers_greedy(model: MoETransformer) -> None:
    mixtral = MixtralForCausalLM(MixtralConfig(**mixtral_config(CONFIG, 64)))
    mixtral.load_state_dict(to_mixtral_state(model, stacked=True))
    prompt = torch.tensor([[1, 5, 9]])
    expected = mixtral.generate(prompt, max_new_tokens=10, do_sample=False, pad_token_id=0)[0, 3:].tolist()
    assert generate(model, [1, 5, 9], 10, temperature=0) == expected


def test_a_seed_fixes_the_draw_and_nothing_else_does(model: MoETransformer) -> None:
    first = generate(model, [1, 2], 20, temperature=0.9, top_p=0.95, seed=7)
    torch.manual_seed(99)
    assert generate(model, [1, 2], 20, temperature=0.9, top_p=0.95, seed=7) == first
    assert generate(model, [1, 2], 20, temperature=0.9, top_p=0.95, seed=8) != first


def test_a_tiny_nucleus_is_greedy_and_ids_and_stops_are_respected(model: MoETransformer) -> None:
    greedy = generate(model, [1, 2], 8, temperature=0)
    assert generate(model, [1, 2], 8, top_p=1e-6) == greedy
    assert max(generate(model, [1, 2], 40, temperature=5.0, num_ids=10)) < 10
    assert generate(model, [1, 2], 8, temperature=0, stop_ids={greedy[0]}) == []


def test_a_long_prompt_loses_its_beginning(model: MoETransformer) -> None:
    prompt = [i % 60 for i in range(50)]
    assert generate(model, prompt, 5, temperature=0) == generate(model, prompt[-16:], 5, temperature=0)
    assert len(generate(model, prompt, 30, temperature=0)) == 30


def test_bad_settings_and_a_broken_model_are_named(model: MoETransformer) -> None:
    for prompt in ([], [64], [-1]):
        with pytest.raises(ConfigError, match="prompt"):
            generate(model, prompt, 1)
    with pytest.raises(ConfigError, match=r"top_p 0"):
        generate(model, [1], 1, top_p=0)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="finite"):
        generate(model, [1], 1)
