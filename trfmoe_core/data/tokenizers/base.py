"""What every tokenizer can do, and the files that one consists of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]

CONFIG_FILE = "tokenizer_config.json"
MODEL_FILE = "tokenizer.json"
BYTE_MARK = "trfmoe_tokenizer"
PADDING_MULTIPLE = 64


def padded(vocab_size: int) -> int:
    """Returns the next multiple of 64, which makes matrix products with the embedding faster."""
    return -(-vocab_size // PADDING_MULTIPLE) * PADDING_MULTIPLE


class Tokenizer(Protocol):
    """Turns text into token ids and back: without loss, or with the loss that `remark` names.

    Two nodes may train together only if the fingerprints of their tokenizers are equal.
    """

    @property
    def name(self) -> str:
        """Its name in logs."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        ...

    @property
    def padded_vocab_size(self) -> int:
        """Number of embedding rows, a multiple of 64."""
        ...

    @property
    def bos_id(self) -> int:
        """The token that starts every piece."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what the tokenizer does, independent of its path."""
        ...

    @property
    def remark(self) -> str:
        """What of a text does not come back; empty for a tokenizer without loss."""
        ...

    def encode(self, text: str) -> TokenIds:
        """Returns the ids of `text`, without any special token."""
        ...

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Returns the ids of each text, without any special token."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Returns the ids of `text` as the saved tokenizer gives them in transformers, with the special tokens that it
        adds or finds in the text.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special and padding ids are left out."""
        ...

    def save(self, folder: Path) -> None:
        """Writes files that `load_tokenizer(str(folder))` and transformers' `AutoTokenizer` can load."""
        ...


def write_folder(folder: Path, model: str, config: dict[str, Any]) -> None:
    """Writes the two files of a tokenizer folder. Each appears at once, when it is complete."""
    from trfmoe_core.atomic import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MODEL_FILE, model)
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
