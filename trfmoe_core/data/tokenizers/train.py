"""Trains a byte-level BPE vocabulary on the owner's text (GPT-2's scheme, lossless for every text)."""

from collections.abc import Iterable

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from trfmoe_core.data.tokenizers.hugging_face import HfTokenizer, check_faithful
from trfmoe_core.errors import DataError

SPECIALS = ("<bos>", "<eos>", "<pad>")
MINIMUM_SIZE = 256 + len(SPECIALS) + 1
LEAK_WARNING = (
    "a vocabulary holds words of the text it was trained on, and every node of a federation gets it: "
    "train it on text that may be seen"
)


def train_bpe(texts: Iterable[str], vocab_size: int, name: str) -> HfTokenizer:
    """Returns a tokenizer with all bytes, three special tokens, and the most frequent pairs.

    The same texts in the same order give the same tokenizer, byte for byte, with any number of threads. Small texts
    give fewer than `vocab_size` tokens.

    Raises:
        DataError: `vocab_size` has no room for a single pair, or no pair of letters occurs twice.
    """
    if vocab_size < MINIMUM_SIZE:
        raise DataError(f"vocabulary of {vocab_size} tokens: bytes and specials need {MINIMUM_SIZE}; ask for more")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() < MINIMUM_SIZE:
        raise DataError("no pair of letters stands twice in the text; train a tokenizer on more of it")
    bos, eos, pad = SPECIALS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
    }
    tokenizer = HfTokenizer(backend, bos, config, name)
    check_faithful(tokenizer, f"tokenizer {name}")
    return tokenizer
