"""The byte tokenizer, which needs no files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trfmoe_core.data.tokenizers.base import TokenIds, padded, write_folder

BYTE_MARK = "trfmoe_tokenizer"


class ByteTokenizer:
    """One token per UTF-8 byte (ids 0..255), then bos 256, eos 257 and pad 258."""

    name = "byte"
    remark = ""
    vocab_size = 259
    padded_vocab_size = padded(259)
    bos_id = 256
    specials = ("<bos>", "<eos>", "<pad>")
    fingerprint = hashlib.sha256(b"trfmoe byte tokenizer: 0..255 bytes, 256 bos, 257 eos, 258 pad").hexdigest()

    def encode(self, text: str) -> TokenIds:
        """Returns one id per UTF-8 byte. Lone surrogates, which UTF-8 cannot express, become question marks."""
        return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int32)

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Returns the ids of each text."""
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str) -> list[int]:
        """Returns the ids of `text`; nothing is added."""
        return [int(one) for one in self.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text. Ids above 255 are left out; bytes that are not UTF-8 become U+FFFD."""
        values = np.asarray(ids, dtype=np.int64).reshape(-1)
        return values[(values >= 0) & (values < 256)].astype(np.uint8).tobytes().decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Writes a Hugging Face folder (byte-level BPE without merges) that gives the same ids."""
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


def _byte_letters() -> list[str]:
    """Returns GPT-2's printable character for every byte, in which byte-level vocabularies are written."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
