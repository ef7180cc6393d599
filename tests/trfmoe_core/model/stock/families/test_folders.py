"""Folders of stock models: what is written, kept, refused and read, tried with Mixtral's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import RunFolderError
from trfmoe_core.model.stock.exporting import export_model, stock_state
from trfmoe_core.model.stock.families.mixtral import Mixtral
from trfmoe_core.model.stock.importing import import_model
from trfmoe_core.model.stock.kept import KeptSettings, kept_settings
from trfmoe_core.model.stock.tensors import fill, pieces
from trfmoe_core.model.transformer import MoETransformer, build_model

BASE = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "experts": 4, "expert_width": 24, "context": 16}
VOCAB = 64


class StubTokenizer:
    """The two things an export asks of a tokenizer."""

    bos_id = 3

    def save(self, folder: Path) -> None:
        (folder / "tokenizer_marker").write_text("saved")


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True, "kv_heads": None, "rope_theta": 2e4}])
def test_transformers_opens_the_export_and_gives_the_same_logits(changes: dict[str, Any], tmp_path: Path) -> None:
    config = ModelConfig.model_validate({**BASE, "init_std": 0.1, **changes})
    model = build_model(config, VOCAB, 0)
    stub: Any = StubTokenizer()
    export_model(model, stub, tmp_path / "out")
    mixtral = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, dtype=torch.float32)
    assert type(mixtral).__name__ == "MixtralForCausalLM" and mixtral.config.bos_token_id == 3
    assert (tmp_path / "out" / "tokenizer_marker").exists()
    tokens = torch.randint(0, VOCAB, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (mixtral(input_ids=tokens).logits - model(tokens).logits_BTV).abs().max() <= 1e-5

    back = import_model(tmp_path / "out")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in back.state_dict().items())
    assert back.config == config.model_copy(
        update={"balance": "pooled", "kv_heads": config.num_kv_heads, "vocab_size": VOCAB}
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_both_spellings_come_back_unchanged(stacked: bool) -> None:
    config = ModelConfig.model_validate(BASE)
    model = build_model(config, VOCAB, 1)
    back = MoETransformer(config, VOCAB)
    fill(back.state_dict(), pieces(Mixtral(), config, stacked=stacked), stock_state(model, stacked=stacked))
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_is_missing_or_foreign_is_named(tmp_path: Path) -> None:
    config = ModelConfig.model_validate(BASE)
    model = build_model(config, VOCAB, 0)
    state = stock_state(model)
    del state["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    with pytest.raises(RunFolderError, match=r"layers\.1\.block_sparse_moe\.experts\.2\.w3"):
        fill(model.state_dict(), pieces(Mixtral(), config), state)
    with pytest.raises(RunFolderError, match="cannot import"):
        import_model(tmp_path)
    foreign = {"model_type": "gemma2", "hidden_size": 32, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(foreign))
    with pytest.raises(
        RunFolderError, match=r"model_type is 'gemma2', but only flex_olmo, llama, mistral, .*can be computed"
    ):
        import_model(tmp_path)


def stock(folder: Path, **changes: Any) -> dict[str, Any]:
    """Writes a small folder as transformers would, and returns its config.json."""
    config = ModelConfig.model_validate(BASE)
    stub: Any = StubTokenizer()
    export_model(build_model(config, VOCAB, 0), stub, folder)
    settings = {**json.loads((folder / "config.json").read_text()), **changes}
    settings = {key: value for key, value in settings.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(settings))
    return settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "rope_parameters: .*'yarn'"),
        ({"rope_parameters": {"type": "linear", "rope_theta": 1e4}}, "'linear', but factor is missing"),
        (
            {"rope_parameters": None, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "low_freq_factor, .*missing",
        ),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling: factor is 4.0"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "one setting for all layers"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"head_dim": 16}, r"o_proj.weight has the shape \[32, 32\], and by config.json it is \[32, 64\]"),
        ({"sliding_window": 12}, r"sliding_window is 12.*--context 12"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, r"the weights are quantized \(awq\)"),
        ({"auto_map": {"AutoModelForCausalLM": "x.Y"}}, "code of its own"),
        ({"architectures": ["MixtralForSequenceClassification"]}, "architectures"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"num_hidden_layers": 1}, r"\d+ tensors such as model.layers.1.\S+ have no place"),
        ({"num_hidden_layers": 3}, "layers.2.*missing"),
        ({"intermediate_size": 32}, "has the shape"),
        ({"num_attention_heads": 0, "head_dim": None}, "no numbers above 0"),
        ({"hidden_size": "absent"}, "does not say 'hidden_size'"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    stock(tmp_path / "in", **changes)
    with pytest.raises(RunFolderError, match=rf"cannot import {tmp_path}/in: .*{message}"):
        import_model(tmp_path / "in")


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 16},
        {"rope_scaling": None, "rope_parameters": None},
        {"rope_scaling": {"type": "default"}},
        {"head_dim": None, "attention_bias": False},
    ],
)
def test_what_changes_nothing_is_accepted(changes: dict[str, Any], tmp_path: Path) -> None:
    stock(tmp_path / "in", **changes)
    model = import_model(tmp_path / "in")
    mixtral = AutoModelForCausalLM.from_pretrained(tmp_path / "in", local_files_only=True, dtype=torch.float32)
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        assert (mixtral(input_ids=tokens).logits - model(tokens).logits_BTV).abs().max() <= 1e-5


@pytest.mark.parametrize("seen", [["pytorch_model.bin"], ["consolidated.00.pth"], ["model.gguf"], []])
def test_a_folder_without_safetensors_says_what_it_holds(seen: list[str], tmp_path: Path) -> None:
    stock(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    for name in seen:
        (tmp_path / name).write_bytes(b"x")
    expected = f"it holds {seen[0]} and no .*save_pretrained" if seen else "it holds no weights"
    with pytest.raises(RunFolderError, match=expected):
        import_model(tmp_path)


def edited(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_tensors_that_would_be_ignored_are_named(tmp_path: Path) -> None:
    stock(tmp_path)
    name = "model.layers.0.self_attn.q_proj.bias"
    edited(tmp_path, lambda state: {**state, name: torch.zeros(32)})
    with pytest.raises(RunFolderError, match=f"{name} have no place"):
        import_model(tmp_path)
    packed = "model.layers.0.block_sparse_moe.experts.0.w1.qweight"
    edited(tmp_path, lambda state: {packed: torch.zeros(3, dtype=torch.int8), **state})
    with pytest.raises(RunFolderError, match=rf"{packed} is quantized \(int8\)"):
        import_model(tmp_path)


def test_the_weights_are_those_that_transformers_takes(tmp_path: Path) -> None:
    """Of a single file and older shards, the single file; of shards, those of the index."""
    stock(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in state.items()}, tmp_path / "model-00001-of-00001.safetensors")
    assert torch.equal(import_model(tmp_path).head.weight, state["lm_head.weight"])
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(import_model(tmp_path).head.weight, state["lm_head.weight"] + 1)
    (tmp_path / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(RunFolderError, match="model-00001-of-00001"):
        import_model(tmp_path)


def test_other_settings_are_kept_for_the_export(tmp_path: Path) -> None:
    more = {"eos_token_id": [2, 5], "pad_token_id": 0, "router_jitter_noise": 0.1, "sliding_window": 64}
    stock(tmp_path / "in", **more, max_position_embeddings=32)
    (tmp_path / "in" / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "eos_token_id": 2}))
    kept = KeptSettings.from_json(kept_settings(tmp_path / "in").to_json())
    assert (kept.end_ids, kept.also_ended_by(3).end_ids) == ([2], [2, 3])
    assert "router_jitter_noise 0.1" in kept.remarks[0]
    model = import_model(tmp_path / "in", context=16)
    stub: Any = StubTokenizer()
    export_model(model, stub, tmp_path / "out", kept=kept)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == json.loads(
        (tmp_path / "in" / "config.json").read_text()
    )
    out = (tmp_path / "out" / "generation_config.json").read_text()
    assert json.loads(out) == {"temperature": 0.6, "eos_token_id": 2}
