"""Documents packed into one sequence do not see each other."""

from typing import Any

import pytest
import torch
from torch import Tensor

from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.transformer import MoETransformer, build_model

VOCAB, BOS = 72, 70
BASE = {"layers": 3, "width": 64, "heads": 4, "experts": 8, "expert_width": 48, "context": 64, "init_std": 0.1}


def make_model(bos_id: int | None = BOS, **changes: Any) -> MoETransformer:
    return build_model(ModelConfig.model_validate({**BASE, "document_mask": True, **changes}), VOCAB, 0, bos_id)


def packed(*lengths: int, seed: int = 1) -> Tensor:
    """Two sequences of documents that each begin with a bos."""
    tokens = torch.randint(0, BOS, (2, sum(lengths)), generator=torch.Generator().manual_seed(seed))
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    tokens[:, starts] = BOS
    return tokens


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 2}, {"top_k": 1}, {"attention": "normed"}])
@pytest.mark.parametrize("lengths", [(20, 44), (1, 63), (31, 2, 31)])
def test_changing_one_document_leaves_the_others_exactly_as_they_were(
    changes: dict[str, Any], lengths: tuple[int, ...]
) -> None:
    model, tokens = make_model(**changes), packed(*lengths)
    logits = model(tokens).logits_BTV
    for document, length in enumerate(lengths):
        begin = sum(lengths[:document])
        other = tokens.clone()
        other[:, begin + 1 : begin + length] = (other[:, begin + 1 : begin + length] + 7) % BOS
        changed = model(other).logits_BTV
        kept = [i for i in range(tokens.shape[1]) if not begin <= i < begin + length]
        assert torch.equal(changed[:, kept], logits[:, kept])
        if length > 2:
            assert not torch.equal(changed[:, begin + 2 : begin + length], logits[:, begin + 2 : begin + length])


def test_a_packed_document_is_what_it_is_alone_and_without_the_mask_it_is_not() -> None:
    model, tokens = make_model(), packed(20, 44)
    together = model(tokens).logits_BTV[:, 20:]
    alone = model(tokens[:, 20:]).logits_BTV
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    plain = make_model(document_mask=False)
    assert (plain(tokens).logits_BTV[:, 20:] - alone).abs().max() > 0.05


def test_given_documents_are_those_of_the_bos_tokens() -> None:
    tokens = packed(20, 44)
    documents = (tokens == BOS).cumsum(1)
    by_bos = make_model()(tokens).logits_BTV
    assert torch.equal(make_model(bos_id=None)(tokens, document_BT=documents).logits_BTV, by_bos)
    assert torch.equal(make_model(document_mask=False)(tokens, document_BT=documents).logits_BTV, by_bos)


def test_gradients_do_not_cross_a_border_and_checkpointing_changes_nothing() -> None:
    tokens = packed(20, 44)
    model = make_model().train()
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[:, 30:] = True

    def gradient() -> Tensor:
        model.zero_grad()
        model(tokens, tokens.roll(-1, 1), mask).cross_entropy.backward()
        return model.embedding.weight.grad.clone()

    plain = gradient()
    only_first = sorted(set(tokens[:, :20].flatten().tolist()) - set(tokens[:, 20:].flatten().tolist()))
    assert only_first and not plain[only_first].any()
    model.gradient_checkpointing = True
    assert torch.equal(gradient(), plain)


def test_a_mask_without_borders_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"document_mask: true, but nothing says where documents begin"):
        make_model(bos_id=None)(packed(20, 44))
