"""The loss on whole texts: every token once, every byte counted, whatever window and stride."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.text_loss import TextLoss, text_loss, windows

BYTE = load_tokenizer("byte")
TEXTS = ["The first text, longer than a window of sixteen.", "", "Grüße", "x"]


def test_every_token_is_a_target_once_and_sees_what_the_stride_promises() -> None:
    for length in (1, 2, 9, 16, 17, 18, 50):
        for context, stride in ((8, 8), (8, 4), (8, 1), (16, 5)):
            tokens = np.arange(length)
            seen: list[int] = []
            for window, counted in windows(tokens, context, stride):
                assert len(window) <= context + 1
                targets = window[len(window) - counted :]
                for target in targets.tolist():
                    before = target - int(window[0])
                    assert before >= min(target, context - stride)
                seen += targets.tolist()
            assert seen == list(range(1, length))


def test_with_a_window_that_holds_the_text_it_is_the_plain_loss() -> None:
    shape = ModelConfig(layers=1, width=16, heads=2, experts=2, top_k=1, expert_width=16, context=64, init_std=0.3)
    model = build_model(shape, BYTE.padded_vocab_size, 0, BYTE.bos_id).eval()

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        found = model(tokens).logits_BTV
        assert found is not None
        return found

    found = text_loss(logits, BYTE, TEXTS, 64)
    nats = 0.0
    for text in TEXTS:
        tokens = torch.tensor([[BYTE.bos_id, *text.encode()]])
        if tokens.shape[1] > 1:
            scores = logits(tokens[:, :-1])[0].log_softmax(-1)
            nats -= float(scores.detach().gather(1, tokens[0, 1:, None]).sum())
    size = sum(len(text.encode()) for text in TEXTS)
    assert (found.tokens, found.num_bytes) == (size, size)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / size), rel=1e-5)
    # Short windows see less, so the number differs, and the tokens do not.
    short = text_loss(logits, BYTE, TEXTS, 16)
    assert short.tokens == found.tokens and short.nats != pytest.approx(found.nats, rel=1e-6)
    with pytest.raises(ConfigError, match="stride of 17"):
        text_loss(logits, BYTE, TEXTS, 16, 17)


def test_a_uniform_model_needs_the_same_bits_in_every_window() -> None:
    def uniform(tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, 256)

    for context in (4, 7, 200):
        found = text_loss(uniform, BYTE, TEXTS, context)
        assert found.bits_per_byte == pytest.approx(8.0, rel=1e-6)


def test_sums_and_nothing_at_all() -> None:
    both = TextLoss(2.0, 3, 4) + TextLoss(1.0, 1, 8)
    assert both == TextLoss(3.0, 4, 12)
    assert math.isnan(TextLoss().bits_per_byte) and math.isnan(TextLoss().perplexity)
    assert TextLoss(1e6, 1, 1).perplexity == math.inf


def test_bytes_are_those_of_the_text_and_not_of_its_tokens(tmp_path: Path) -> None:
    class Halving:
        """Makes one token of two letters and loses an odd last one."""

        name, vocab_size, padded_vocab_size, bos_id, fingerprint = "halving", 4, 64, 0, ""

        def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
            return [np.full(len(text) // 2, 1, dtype=np.int32) for text in texts]

    def uniform(tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, 4)

    found = text_loss(uniform, Halving(), ["abcde", "é"], 8)  # type: ignore[arg-type]
    assert (found.tokens, found.num_bytes) == (2, 7)
    assert found.bits_per_byte == pytest.approx(2 * 2 / 7)
