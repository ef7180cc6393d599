"""Loads tokenizers by name."""

import json
from pathlib import Path
from typing import Any

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.data.tokenizers.base import CONFIG_FILE, Tokenizer
from trfmoe_core.data.tokenizers.byte import BYTE_MARK, ByteTokenizer
from trfmoe_core.errors import ConfigError, DataError
from trfmoe_core.places import expand, is_hub_name


def load_tokenizer(name: str) -> Tokenizer:
    """Returns the tokenizer called `name`: `byte`, a local tokenizer folder, or a name on the Hugging Face hub.

    The network is used only for names that are no local folder. Code in a folder is never run.

    Raises:
        DataError: there is no such folder or name, no network, or no tokenizer of more than 256
            tokens that keeps what a text says.
    """
    if name == "byte":
        return ByteTokenizer()
    folder = expand(name)
    if folder.is_file():
        raise DataError(
            f"tokenizer {name!r}: is a file, and a tokenizer is the folder that holds it; give {folder.parent}"
        )
    if not folder.is_dir():
        if not is_hub_name(name):
            raise DataError(
                f"tokenizer {name!r}: no such folder (looked in {folder.absolute()}); "
                "use byte, the path of a tokenizer folder, or a name on the Hugging Face hub such as gpt2"
            )
        from trfmoe_core.data.hub.tokenizer_files import download

        folder = download(name)
    config = read_config(folder)
    if config.get(BYTE_MARK) == "byte":
        return ByteTokenizer()
    from trfmoe_core.data.tokenizers.hugging_face import load_folder

    return load_folder(folder, config, name=name if is_hub_name(name) else folder.resolve().name)


def check_vocabulary(model: ModelConfig, tokenizer: Tokenizer) -> None:
    """Makes sure that every token of the tokenizer has a row in the model's embedding.

    Raises:
        ConfigError: there are fewer rows.
    """
    if model.vocab_size is not None and model.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size: {model.vocab_size:,} rows, but tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} "
            f"tokens; give {tokenizer.vocab_size} or more, or leave it out for {tokenizer.padded_vocab_size:,}"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the folder's tokenizer_config.json, or an empty dictionary if there is none.

    Raises:
        DataError: the file exists and cannot be read as a JSON object.
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
