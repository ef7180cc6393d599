"""Tokenizers: bytes, local Hugging Face folders, names on the hub, and vocabularies trained on one's own text."""

from trfmoe_core.data.tokenizers.base import Tokenizer
from trfmoe_core.data.tokenizers.load import check_vocabulary, load_tokenizer

__all__ = ["Tokenizer", "check_vocabulary", "load_tokenizer"]
