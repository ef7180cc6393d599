"""Starts transformers' server with tokenizers that normalise every prompt as the training text was.

`python -m scripts.run.serving NORMALIZATION ARGUMENTS...`, where the arguments are those of `transformers serve`.
"""

import sys
from typing import Any, cast

from tokenizers import NormalizedString, normalizers
from transformers import PreTrainedTokenizerBase

from trfmoe_core.data.documents.clean import Normalization, normalize


class PromptNormalizer:
    """A normalizer of the `tokenizers` library that does what `documents.clean.normalize` does."""

    def __init__(self, normalization: Normalization) -> None:
        self._normalization = normalization

    def normalize(self, text: NormalizedString) -> None:
        """Replaces the characters of a prompt."""
        given = str(text.normalized)
        normal = normalize(given, self._normalization)
        if normal != given:
            text.replace(given, normal)


def normalise_prompts(normalization: Normalization) -> None:
    """Lets every tokenizer that transformers loads from now on normalise what it encodes."""
    base: Any = PreTrainedTokenizerBase
    load = base.from_pretrained.__func__

    def from_pretrained(kind: Any, *arguments: Any, **more: Any) -> Any:
        tokenizer = load(kind, *arguments, **more)
        backend = tokenizer.backend_tokenizer
        ours = normalizers.Normalizer.custom(PromptNormalizer(normalization))
        backend.normalizer = normalizers.Sequence([ours, backend.normalizer]) if backend.normalizer else ours
        return tokenizer

    base.from_pretrained = classmethod(from_pretrained)


def main() -> None:
    """Serves until the process is ended."""
    from transformers.cli import transformers

    normalise_prompts(cast(Normalization, sys.argv[1]))
    sys.argv = ["transformers", "serve", *sys.argv[2:]]
    transformers.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
