"""Every family: transformers makes a small random model, and ours computes the same from its folder, and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.stock.exporting import export_model
from trfmoe_core.model.stock.families import FAMILIES
from trfmoe_core.model.stock.importing import import_model
from trfmoe_core.model.stock.upcycling import Upcycling
from trfmoe_core.model.transformer import MoETransformer

VOCAB, CONTEXT = 64, 16
DENSE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3, "num_key_value_heads": 4}),
    ("llama", {"head_dim": 16, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    ("mistral", {"sliding_window": None, "head_dim": 16}),
    ("mistral", {"sliding_window": 32}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 16}),
    ("olmo2", {}),
    ("mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}),
    ("qwen2_moe", {**EXPERTS, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40}),
    ("qwen2_moe", {**EXPERTS, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "qkv_bias": False}),
    ("qwen3_moe", {"num_local_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 16}),
    ("qwen3_moe", {**EXPERTS, "moe_intermediate_size": 24, "head_dim": 8, "norm_topk_prob": True}),
    ("olmoe", EXPERTS),
    ("flex_olmo", {**EXPERTS, "norm_topk_prob": True}),
]


class StubTokenizer:
    """The two things an export asks of a tokenizer."""

    bos_id = 3

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)


def make(folder: Path, family: str, changes: dict[str, Any]) -> Any:
    """Returns a random model of transformers, saved in `folder`; biases and norms are random too."""
    config = AutoConfig.for_model(family, **{**DENSE, **changes})
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, experts_implementation="eager").float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(folder)
    return model.eval()


def difference(theirs: Any, ours: MoETransformer) -> float:
    """Returns the largest difference of the logits, relative to the largest logit."""
    tokens = torch.randint(0, VOCAB, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs(input_ids=tokens).logits, ours.eval()(tokens).logits_BTV
    assert found is not None and expected.std() > 0.05
    return float((expected - found).abs().max() / expected.abs().max())


def test_every_family_is_tried() -> None:
    assert {family for family, _ in MODELS} == set(FAMILIES.names())


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_a_folder_is_computed_as_transformers_computes_it_and_comes_back(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = make(tmp_path / "in", family, changes)
    dense = not FAMILIES.find(family).sparse
    ours = import_model(tmp_path / "in", upcycling=Upcycling(experts=1, top_k=1) if dense else None)
    assert difference(theirs, ours) <= 1e-4 / 10

    stub: Any = StubTokenizer()
    export_model(ours, stub, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", local_files_only=True, dtype=torch.float32, experts_implementation="eager"
    )
    assert FAMILIES.find(back.config.model_type).sparse and (dense or back.config.model_type == family)
    assert difference(back, ours) <= 1e-5

    again = import_model(tmp_path / "out")
    assert again.config.model_copy(update={"balance": "x", "balance_weight": 0}) == ours.config.model_copy(
        update={"balance": "x", "balance_weight": 0}
    )
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("mistral", {"sliding_window": 12}, "sliding_window is 12, below the context of 32"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_window is 8"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("olmo2", {"attention_bias": True}, "attention_bias is True"),
        ("mixtral", {"sliding_window": 12}, "sliding_window is 12"),
        ("qwen2_moe", {**EXPERTS, "mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]"),
        ("qwen3_moe", {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
        ("olmoe", {**EXPERTS, "clip_qkv": 8.0}, "clip_qkv is 8.0"),
        ("flex_olmo", {**EXPERTS, "attention_bias": True}, "attention_bias is True"),
    ],
)
def test_what_a_family_can_have_and_we_cannot_compute_is_refused(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(family, **{**DENSE, **changes}).save_pretrained(tmp_path)
    with pytest.raises(RunFolderError, match=message):
        import_model(tmp_path)


def test_a_yarn_model_and_gpt2_are_refused_by_name(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 8}
    AutoConfig.for_model("qwen2", **{**DENSE, "rope_parameters": yarn}).save_pretrained(tmp_path)
    with pytest.raises(RunFolderError, match="rope_type is 'yarn'"):
        import_model(tmp_path)
    AutoConfig.for_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(RunFolderError, match="model_type is 'gpt2', but only"):
        import_model(tmp_path)


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    theirs = make(tmp_path, "llama", {})
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors").unlink()
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert difference(theirs, import_model(tmp_path, upcycling=Upcycling(experts=1, top_k=1))) <= 1e-5

    wrong = {**index, "weight_map": {**index["weight_map"], "model.more.weight": index["weight_map"]["lm_head.weight"]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(wrong))
    with pytest.raises(RunFolderError, match=r"the index says that model\.more\.weight is in"):
        import_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / index["weight_map"]["lm_head.weight"]).unlink()
    with pytest.raises(RunFolderError, match="cannot import"):
        import_model(tmp_path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    theirs = make(tmp_path, "qwen2", {})
    with torch.no_grad():
        theirs.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    theirs.save_pretrained(tmp_path)
    with pytest.raises(RunFolderError, match=r"layers\.1\.mlp\.up_proj\.weight holds numbers that are not finite"):
        import_model(tmp_path)


def test_options_for_experts_need_a_dense_model(tmp_path: Path) -> None:
    make(tmp_path, "olmoe", EXPERTS)
    with pytest.raises(ConfigError, match="has experts already"):
        import_model(tmp_path, upcycling=Upcycling())
