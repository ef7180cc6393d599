"""Weights in several files: transformers reads them, and so does an import."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trfmoe_core.model.stock.families.test_families import StubTokenizer, difference
from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.stock.exporting import export_model, stock_state
from trfmoe_core.model.stock.importing import import_model
from trfmoe_core.model.stock.weight_files import INDEX_FILE, parse_size
from trfmoe_core.model.transformer import build_model

STUB: Any = StubTokenizer()


def test_several_files_are_one_model(tmp_path: Path) -> None:
    shape = ModelConfig(layers=2, width=32, heads=2, experts=4, expert_width=24, context=32, init_std=0.3)
    model = build_model(shape, 64, 0, 3)
    export_model(model, STUB, tmp_path, max_shard_bytes=20_000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    # The head of a file takes up to a few kilobytes.
    assert all((tmp_path / name).stat().st_size < 25_000 for name in files)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    state = stock_state(model)
    assert set(index["weight_map"]) == set(state) and set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == 4 * sum(tensor.numel() for tensor in state.values())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True, experts_implementation="eager")
    assert difference(theirs, model) <= 1e-5
    again = import_model(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    export_model(model, STUB, tmp_path / "whole", dtype=torch.bfloat16)
    assert [path.name for path in (tmp_path / "whole").glob("*.safetensors*")] == ["model.safetensors"]
    # A tensor that is too large for a file gets its own.
    export_model(model, STUB, tmp_path / "single", max_shard_bytes=1)
    assert len(list((tmp_path / "single").glob("*.safetensors"))) == len(state)


def test_sizes_are_decimal() -> None:
    assert [parse_size(text) for text in ("5GB", "1.5 mb", "200", "3KB")] == [5 * 10**9, 1_500_000, 200, 3000]
    for text in ("", "0GB", "5 apples", "-1GB", "1GiB"):
        with pytest.raises(ConfigError, match="no size; give one such as 500MB or 5GB"):
            parse_size(text)
