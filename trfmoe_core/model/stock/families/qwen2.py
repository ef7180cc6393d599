"""Qwen2 and Qwen2.5 (arXiv 2407.10671): queries, keys and values have biases."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES, Family


@FAMILIES.register("qwen2")
class Qwen2(Family):
    """Llama's layout with three biases a layer, dense."""

    architecture = "Qwen2ForCausalLM"
    parts: ClassVar[Mapping[str, Any]] = {"qkv_bias": True}
