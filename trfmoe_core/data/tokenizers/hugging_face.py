"""Local Hugging Face tokenizers such as GPT-2's and Llama's, if they keep what a text says. Runs no code of folders."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from trfmoe_core.atomic import write_text
from trfmoe_core.counts import counted
from trfmoe_core.data.tokenizers.base import CONFIG_FILE, MODEL_FILE, TokenIds, padded, write_folder
from trfmoe_core.errors import DataError

PROBE = "Hello world, it's 3.14!\n\tGrüße — 你好 🙂 "
MINIMUM_VOCABULARY = 257
_PROBE_REPEATS, _PROBE_TIMES = 4, 8
GPT2_BOS = "<|endoftext|>"
TEMPLATE_FILE, TEMPLATE_KEY = "chat_template.jinja", "chat_template"


class HfTokenizer:
    """A tokenizer of the `tokenizers` library. Its bos, or its eos if it has no bos, starts every piece."""

    def __init__(self, backend: Backend, bos_token: str, config: dict[str, Any], name: str) -> None:
        """Wraps a tokenizer of the library.

        Args:
            backend: the library's tokenizer; its truncation and padding are switched off.
            bos_token: the token that starts every piece.
            config: content of its tokenizer_config.json.
            name: its name in logs.

        Raises:
            DataError: `bos_token` is none of its tokens.
        """
        backend.no_truncation()
        backend.no_padding()
        # "<|endoftext|>" in a text is text and must not become the special token.
        backend.encode_special_tokens = True
        self.backend, self._bos_token = backend, bos_token
        self._config = config
        self.name = name
        bos_id = backend.token_to_id(bos_token)
        if bos_id is None:
            raise DataError(f"tokenizer {name}: its {CONFIG_FILE} names {bos_token!r}, which is none of its tokens")
        self.bos_id = int(bos_id)
        # Ids may have gaps; the embedding needs a row for the highest.
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.padded_vocab_size = padded(self.vocab_size)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what the tokenizer does. Computed on demand, because it takes a while for large ones."""
        content = json.dumps([json.loads(self.backend.to_str()), self.bos_id], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    @cached_property
    def remark(self) -> str:
        """What of a text does not come back; empty for a tokenizer without loss."""
        back = self.decode(self.encode(PROBE).tolist())
        if back == PROBE:
            return ""
        return (
            f"it normalises text ({PROBE!r} comes back as {back!r}), so the model never sees the original; losses a "
            "byte count the bytes of the original and can be compared only between models with this tokenizer"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes copies for other processes, with the settings that the library does not copy."""
        return HfTokenizer, (self.backend, self._bos_token, self._config, self.name)

    def encode(self, text: str) -> TokenIds:
        """Returns the ids of `text`, without any special token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Returns the ids of each text, without any special token."""
        encodable = [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encodings = self.backend.encode_batch_fast(encodable, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_prompt(self, text: str) -> list[int]:
        """Returns the ids of `text` as transformers gives them for the saved tokenizer.

        Its post-processor adds special tokens, and special tokens in the text are found unless its configuration says
        `split_special_tokens`.
        """
        encodable = text.encode("utf-8", "replace").decode("utf-8")
        self.backend.encode_special_tokens = bool(self._config.get("split_special_tokens", False))
        try:
            return list(self.backend.encode(encodable).ids)
        finally:
            self.backend.encode_special_tokens = True

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special ids and ids of padding rows are left out."""
        known = [int(one) for one in ids if 0 <= int(one) < self.vocab_size]
        return str(self.backend.decode(known, skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, and the chat template in a file of its own."""
        config = dict(self._config)
        template = config.get(TEMPLATE_KEY)
        if isinstance(template, str):
            del config[TEMPLATE_KEY]
        write_folder(folder, self.backend.to_str(pretty=True), config)
        if isinstance(template, str):
            write_text(folder / TEMPLATE_FILE, template)


def load_folder(folder: Path, config: dict[str, Any], name: str) -> HfTokenizer:
    """Returns the tokenizer in `folder`. `config` is its tokenizer_config.json and may be empty.

    Raises:
        DataError: there is no tokenizer, or it is too small, has no bos or eos, loses text or samples.
    """
    backend, config = _read_backend(folder, config)
    try:
        config = {**config, TEMPLATE_KEY: (folder / TEMPLATE_FILE).read_text(encoding="utf-8")}
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise DataError(f"tokenizer file {folder / TEMPLATE_FILE} cannot be read: {error}; replace it") from error
    bos_token = _token(config.get("bos_token")) or _token(config.get("eos_token")) or _end_of_text(backend)
    if bos_token is None:
        raise DataError(f"tokenizer {folder}: neither bos_token nor eos_token in {CONFIG_FILE}; name one there")
    tokenizer = HfTokenizer(backend, bos_token, config, name)
    check_faithful(tokenizer, f"tokenizer {folder}")
    check_repeatable(tokenizer, f"tokenizer {folder}")
    return tokenizer


def check_repeatable(tokenizer: HfTokenizer, where: str) -> None:
    """Makes sure that the same text always gives the same ids: nodes and restarts would train on different ones.

    Raises:
        DataError: the tokenizer draws lots.
    """
    dropout = getattr(tokenizer.backend.model, "dropout", None)
    if dropout:
        raise DataError(
            f"{where}: its BPE dropout is {dropout:g}, so the same text gives other tokens each time; "
            f"set model.dropout to null in {MODEL_FILE}"
        )
    texts = [PROBE * _PROBE_REPEATS] * _PROBE_TIMES
    if len({ids.tobytes() for ids in tokenizer.encode_batch(texts)}) > 1:
        raise DataError(f"{where}: the same text gives other tokens each time; use a tokenizer that does not sample")


def check_faithful(tokenizer: HfTokenizer, where: str) -> None:
    """Makes sure that a tokenizer has a vocabulary and keeps what a text says, up to normalisation.

    Normalisation is Unicode's NFKC and the kind and number of blanks. A tokenizer that loses more, such as letters or
    their case, would train on another text without a word.

    Raises:
        DataError: it is nearly empty or loses more.
    """
    if tokenizer.vocab_size < MINIMUM_VOCABULARY:
        raise DataError(
            f"{where}: only {counted(tokenizer.vocab_size, 'token')}, fewer than {MINIMUM_VOCABULARY}; "
            "its vocabulary was probably not loaded: put a tokenizer.json in the folder"
        )
    back = tokenizer.decode(tokenizer.encode(PROBE).tolist())
    if normalised(back) != normalised(PROBE):
        raise DataError(
            f"{where}: {PROBE!r} comes back as {back!r}, which says something else; "
            "use a byte-level tokenizer such as GPT-2's, or train one with `trfmoe data tokenizer`"
        )


def normalised(text: str) -> str:
    """Returns what of a text a tokenizer has to keep: NFKC, with one blank between words."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


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
    """Converts an older folder (vocab.json and merges.txt) with transformers."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise DataError(
            f"tokenizer folder {folder}: has neither a {MODEL_FILE} nor other files that transformers can make one of, "
            "such as vocab.json and merges.txt; give a folder that save_pretrained has written, or train one with "
            "`trfmoe data tokenizer`"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Backend):
        raise DataError(f"tokenizer folder {folder}: has no fast tokenizer; save one with save_pretrained")
    names = {"bos_token": loaded.bos_token, "eos_token": loaded.eos_token}
    return backend, {"tokenizer_class": "PreTrainedTokenizerFast"} | config | names


def _end_of_text(backend: Backend) -> str | None:
    """Returns GPT-2's only special token if the tokenizer has it: GPT-2's folders name no bos and no eos."""
    return GPT2_BOS if backend.token_to_id(GPT2_BOS) is not None else None


def _token(value: object) -> str | None:
    """Returns a token that is written as a string, or as an object with the string under `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
