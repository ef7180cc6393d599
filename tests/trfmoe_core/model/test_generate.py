"""Generation: greedy equals transformers', draws follow the seed, prompts may be long."""

from typing import Any

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.generate import generate as stream
from trfmoe_core.model.kv_cache import KeyValueCache
from trfmoe_core.model.stock.exporting import stock_config, stock_state
from trfmoe_core.model.transformer import MoETransformer, build_model

CONFIG = ModelConfig.model_validate(
    {"layers": 2, "width": 32, "heads": 4, "experts": 4, "expert_width": 24, "context": 16, "init_std": 0.2}
)


def generate(*arguments: Any, **settings: Any) -> list[int]:
    return list(stream(*arguments, **settings))


@pytest.fixture
def model() -> MoETransformer:
    return build_model(CONFIG, 64, 0)


def test_greedy_is_transformers_greedy(model: MoETransformer) -> None:
    mixtral = MixtralForCausalLM(MixtralConfig(**stock_config(CONFIG, 64)))
    mixtral.load_state_dict(stock_state(model, stacked=True))
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


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("cuts", [[5, 1, 1, 1], [1, 6, 9], [16]])
def test_cached_logits_are_the_uncached(kv_heads: int, cuts: list[int]) -> None:
    model = build_model(CONFIG.model_copy(update={"kv_heads": kv_heads}), 64, 0)
    tokens = torch.randint(0, 64, (2, sum(cuts)), generator=torch.Generator().manual_seed(1))
    cache = KeyValueCache(CONFIG.layers, CONFIG.context)
    with torch.no_grad():
        parts = [model.head(model.hidden(part, torch.float32, cache)[0]) for part in tokens.split(cuts, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens).logits_BTV, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="context 16"):
        model.hidden(tokens.repeat(1, 4), torch.float32, cache)


def test_a_text_past_the_context_follows_the_last_window(model: MoETransformer) -> None:
    text = [1, 5, 9]
    for _ in range(30):
        with torch.no_grad():
            text.append(int(model(torch.tensor([text[-16:]])).logits_BTV[0, -1].argmax()))
    assert generate(model, [1, 5, 9], 30, temperature=0) == text[3:]


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


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-8, 1e300])
def test_any_positive_temperature_draws(temperature: float) -> None:
    model = build_model(CONFIG, 64, 0)
    tokens = list(generate(model, [1], 20, temperature=temperature))
    coldest = list(generate(model, [1], 20, temperature=0.0))
    assert (tokens == coldest) == (temperature < 1)


@pytest.mark.parametrize("temperature", [-1.0, float("nan")])
def test_other_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        generate(build_model(CONFIG, 64, 0), [1], 5, temperature=temperature)
