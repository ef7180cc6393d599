"""Llama 2 and 3 (arXiv 2407.21783) and the many models that use their layout."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES, Family


@FAMILIES.register("llama")
class Llama(Family):
    """The base layout, dense."""

    architecture = "LlamaForCausalLM"
    # Above 1 the weights were split for tensor parallelism and the products are summed in parts.
    only: ClassVar[Mapping[str, Any]] = {"pretraining_tp": 1}
