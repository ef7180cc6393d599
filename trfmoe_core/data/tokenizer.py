"""What a tokenizer is here, the byte tokenizer that needs no files, and how one is loaded by name."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trfmoe_core.errors import DataError
from trfmoe_core.places import expand, is_hub_name

TokenIds = npt.NDArray[np.int32]

CONFIG_FILE = "tokenizer_config.json"
MODEL_FILE = "tokenizer.json"
BYTE_MARK = "trfmoe_tokenizer"
PADDING_MULTIPLE = 64


def padded(vocab_size: int) -> int:
    """Returns the next multiple of 64: the rows of an embedding table that is quick to multiply with."""
    return -(-vocab_size // PADDING_MULTIPLE) * PADDING_MULTIPLE


class Tokenizer(Protocol):
    """Turns text into token ids and back without loss.

    `vocab_size` counts real tokens, `padded_vocab_size` rows of the embedding. `fingerprint` is a SHA-256 of what the
    tokenizer does, not of where it lies: two nodes may train together only if theirs are equal.
    """

    @property
    def name(self) -> str:
        """What a log calls it."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of real tokens."""
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
        """Hex SHA-256 of the content."""
        ...

    def encode(self, text: str) -> TokenIds:
        """Returns the ids of `text`, without any special token."""
        ...

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Returns the ids of each text, without any special token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special and padding ids are left out."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what `load_tokenizer(str(folder))` and transformers' `AutoTokenizer` can load again."""
        ...


class ByteTokenizer:
    """One token a UTF-8 byte (ids 0..255), then bos 256, eos 257 and pad 258. Needs no files and cannot fail."""

    name = "byte"
    vocab_size = 259
    padded_vocab_size = padded(259)
    bos_id = 256
    specials = ("<bos>", "<eos>", "<pad>")
    fingerprint = hashlib.sha256(b"trfmoe byte tokenizer: 0..255 bytes, 256 bos, 257 eos, 258 pad").hexdigest()

    def encode(self, text: str) -> TokenIds:
        """Returns one id a UTF-8 byte; what UTF-8 cannot express (lone surrogates) becomes a question mark."""
        return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int32)

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Returns the ids of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text; ids above 255 are left out, bytes that are no UTF-8 become U+FFFD."""
        values = np.asarray(ids, dtype=np.int64).reshape(-1)
        return values[(values >= 0) & (values < 256)].astype(np.uint8).tobytes().decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Writes a stock Hugging Face folder (byte-level BPE without merges) that gives the same ids."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers

        letters = _byte_letters()
        vocabulary = {letters[byte]: byte for byte in range(256)}
        backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens(list(self.specials))
        bos, eos, pad = self.specials
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "pad_token": pad,
            "clean_up_tokenization_spaces": False,
            # Text that happens to hold "<bos>" is text.
            "split_special_tokens": True,
            BYTE_MARK: "byte",
        }
        write_folder(folder, backend.to_str(pretty=True), config)


def load_tokenizer(name: str) -> Tokenizer:
    """Returns the tokenizer called `name`: `byte`, a local tokenizer folder, or a name on the Hugging Face hub.

    Only a name that is no local folder reaches for the network, and no code of a folder is ever run.

    Raises:
        DataError: no such folder or name, no network, or no lossless tokenizer of more than 256 tokens there.
    """
    if name == "byte":
        return ByteTokenizer()
    folder = expand(name)
    if not folder.is_dir():
        if not is_hub_name(name):
            raise DataError(
                f"tokenizer {name!r}: no such folder (looked in {folder.absolute()}); "
                "use byte, the path of a tokenizer folder, or a name on the Hugging Face hub such as gpt2"
            )
        from trfmoe_core.data.hub_tokenizer import download

        folder = download(name)
    config = read_config(folder)
    if config.get(BYTE_MARK) == "byte":
        return ByteTokenizer()
    from trfmoe_core.data.hf_tokenizer import load_folder

    return load_folder(folder, config, name=name if is_hub_name(name) else folder.resolve().name)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the folder's tokenizer_config.json, or an empty dictionary where there is none.

    Raises:
        DataError: the file is there and cannot be read as a JSON object.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"tokenizer file {path} cannot be read: {error}; replace it") from error
    if not isinstance(config, dict):
        raise DataError(f"tokenizer file {path} holds a {type(config).__name__}, not an object; replace it")
    return config


def write_folder(folder: Path, model: str, config: dict[str, Any]) -> None:
    """Writes the two files of a tokenizer folder, each whole or not at all."""
    from trfmoe_core.atomic import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MODEL_FILE, model)
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def _byte_letters() -> list[str]:
    """Returns GPT-2's printable letter for every byte, in which byte-level vocabularies are written."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
