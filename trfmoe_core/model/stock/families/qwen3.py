"""Qwen3 (arXiv 2505.09388): queries and keys are normalised in each head."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES, Family


@FAMILIES.register("qwen3")
class Qwen3(Family):
    """Llama's layout with norms of queries and keys, dense."""

    architecture = "Qwen3ForCausalLM"
    parts: ClassVar[Mapping[str, Any]] = {"attention": "normed"}
