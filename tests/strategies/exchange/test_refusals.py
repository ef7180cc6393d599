"""What the operator reads when a node refuses: one sentence for every code, with the numbers in it."""

from typing import get_args

import pytest

from strategies.exchange.refusals import Code, Refusal, sentence


@pytest.mark.parametrize("code", get_args(Code))
def test_every_code_has_a_sentence(code: Code) -> None:
    told = sentence(Refusal(code=code, asked=17, granted=23, count=29, kind="OSError"))
    assert told and "{" not in told and "None" not in told
    assert "17" in sentence(Refusal(code="limits-steps", asked=17, granted=23))


def test_numbers_that_a_node_leaves_out_are_marked() -> None:
    assert "?" in sentence(Refusal(code="limits-disk"))
