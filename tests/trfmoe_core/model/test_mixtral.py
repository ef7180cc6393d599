"""Out to a stock Mixtral folder and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import RunFolderError
from trfmoe_core.model.mixtral import export_mixtral, from_mixtral_state, import_mixtral, to_mixtral_state
from trfmoe_core.model.transformer import build_model

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
    export_mixtral(model, config, stub, tmp_path / "out")
    mixtral = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, dtype=torch.float32)
    assert type(mixtral).__name__ == "MixtralForCausalLM" and mixtral.config.bos_token_id == 3
    assert (tmp_path / "out" / "tokenizer_marker").exists()
    tokens = torch.randint(0, VOCAB, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (mixtral(input_ids=tokens).logits - model(tokens).logits_BTV).abs().max() <= 1e-5

    back = import_mixtral(tmp_path / "out")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in back.state_dict().items())
    assert back.config == config.model_copy(
        update={"balance": "pooled", "kv_heads": config.num_kv_heads, "vocab_size": VOCAB}
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_both_spellings_come_back_unchanged(stacked: bool) -> None:
    config = ModelConfig.model_validate(BASE)
    model = build_model(config, VOCAB, 1)
    back = from_mixtral_state(to_mixtral_state(model, stacked=stacked), config)
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in model.state_dict().items())


def test_what_is_missing_or_foreign_is_named(tmp_path: Path) -> None:
    config = ModelConfig.model_validate(BASE)
    state = to_mixtral_state(build_model(config, VOCAB, 0))
    del state["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    with pytest.raises(RunFolderError, match=r"layers\.1\.block_sparse_moe\.experts\.2\.w3"):
        from_mixtral_state(state, config)
    with pytest.raises(RunFolderError, match="cannot import"):
        import_mixtral(tmp_path)
    foreign = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(foreign))
    with pytest.raises(RunFolderError, match="model_type is 'llama'"):
        import_mixtral(tmp_path)
