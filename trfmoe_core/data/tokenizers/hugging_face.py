"""Local Hugging Face tokenizers (GPT-2, DialoGPT and other lossless ones), read without running foreign code."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from trfmoe_core.data.tokenizers.base import CONFIG_FILE, MODEL_FILE, TokenIds, padded, write_folder
from trfmoe_core.errors import DataError

PROBE = "Hello world, it's 3.14!\n\tGrüße — 你好 🙂 "
MINIMUM_VOCABULARY = 257
GPT2_BOS = "<|endoftext|>"


class HfTokenizer:
    """A tokenizer of the `tokenizers` library with a token that starts a piece (its bos, else its eos)."""

    def __init__(self, backend: Backend, bos_token: str, config: dict[str, Any], name: str) -> None:
        """Wraps `backend`, whose truncation and padding are switched off; `bos_token` must be one of its tokens."""
        backend.no_truncation()
        backend.no_padding()
        # Text that happens to hold "<|endoftext|>" is text: it must not turn into the special token.
        backend.encode_special_tokens = True
        self.backend, self._bos_token = backend, bos_token
        self._config = config
        self.name = name
        bos_id = backend.token_to_id(bos_token)
        if bos_id is None:
            raise DataError(f"tokenizer {name}: its {CONFIG_FILE} names {bos_token!r}, which is none of its tokens")
        self.bos_id = int(bos_id)
        # Ids may have holes; the embedding needs a row for the highest.
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.padded_vocab_size = padded(self.vocab_size)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what the tokenizer does; found when it is asked for, because large ones take a while."""
        content = json.dumps([json.loads(self.backend.to_str()), self.bos_id], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets it whole; what the library does not carry over is set again."""
        return HfTokenizer, (self.backend, self._bos_token, self._config, self.name)

    def encode(self, text: str) -> TokenIds:
        """Returns the ids of `text`, without any special token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Returns the ids of each text, without any special token."""
        clean = [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encodings = self.backend.encode_batch_fast(clean, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special ids and ids of padding rows are left out."""
        known = [int(one) for one in ids if 0 <= int(one) < self.vocab_size]
        return str(self.backend.decode(known, skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        write_folder(folder, self.backend.to_str(pretty=True), self._config)


def load_folder(folder: Path, config: dict[str, Any], name: str) -> HfTokenizer:
    """Returns the tokenizer that lies in `folder`; `config` is its tokenizer_config.json, possibly empty.

    Raises:
        DataError: the folder holds no tokenizer, or one that is too small, has no bos or eos, or loses text.
    """
    backend, config = _read_backend(folder, config)
    bos_token = _token(config.get("bos_token")) or _token(config.get("eos_token")) or _end_of_text(backend)
    if bos_token is None:
        raise DataError(f"tokenizer {folder}: neither bos_token nor eos_token in {CONFIG_FILE}; name one there")
    tokenizer = HfTokenizer(backend, bos_token, config, name)
    check_lossless(tokenizer, f"tokenizer {folder}")
    return tokenizer


def check_lossless(tokenizer: HfTokenizer, where: str) -> None:
    """Raises a DataError for a tokenizer that is nearly empty or loses text: silent in training, ruinous in figures."""
    if tokenizer.vocab_size < MINIMUM_VOCABULARY:
        raise DataError(
            f"{where}: only {tokenizer.vocab_size} tokens, fewer than {MINIMUM_VOCABULARY}; "
            "its vocabulary was probably not loaded: put a tokenizer.json in the folder"
        )
    back = tokenizer.decode(tokenizer.encode(PROBE).tolist())
    if back != PROBE:
        raise DataError(
            f"{where}: {PROBE!r} comes back as {back!r}; losses per byte need a lossless tokenizer: "
            "use a byte-level one such as GPT-2's, or train one with `trfmoe data tokenizer`"
        )


def _read_backend(folder: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, Any]]:
    path = folder / MODEL_FILE
    if not path.is_file():
        return _convert(folder, config)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"tokenizer file {path} cannot be read: {error}; check it") from error
    try:
        return Backend.from_str(text), config
    except Exception as error:  # the Rust library raises nothing narrower
        raise DataError(f"tokenizer file {path} is no tokenizer: {error}; replace it") from error


def _convert(folder: Path, config: dict[str, Any]) -> tuple[Backend, dict[str, Any]]:
    """Older folders (vocab.json and merges.txt) are converted by transformers."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise DataError(
            f"tokenizer folder {folder}: no {MODEL_FILE}, and transformers cannot load it either "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); point at a tokenizer folder"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Backend):
        raise DataError(f"tokenizer folder {folder}: has no fast tokenizer; save one with save_pretrained")
    names = {"bos_token": loaded.bos_token, "eos_token": loaded.eos_token}
    return backend, {"tokenizer_class": "PreTrainedTokenizerFast"} | config | names


def _end_of_text(backend: Backend) -> str | None:
    """GPT-2's folders name no token that starts a text; its only special token does."""
    return GPT2_BOS if backend.token_to_id(GPT2_BOS) is not None else None


def _token(value: object) -> str | None:
    """A token is written as a string, or as an object that holds it under `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
