"""Mistral (arXiv 2310.06825): Llama's layout with a sliding window."""

from trfmoe_core.model.stock.families.base import FAMILIES, Family


@FAMILIES.register("mistral")
class Mistral(Family):
    """The base layout, dense; where a folder does not say the window it is 4,096."""

    architecture = "MistralForCausalLM"
    window = 4096
