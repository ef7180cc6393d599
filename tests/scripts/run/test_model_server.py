"""What the model server adds to transformers' own: prompts in the form of the training text."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from trfmoe_core.data.documents.clean import normalize
from trfmoe_core.data.tokenizers.byte import ByteTokenizer

PROMPT = "2³² e\u0301\u00a0ﬁne\x00 ㅋ Ａ\r\nend "


def test_served_prompts_are_normalised_like_training_text(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="transformers' server is not installed")
    from scripts.run.model_server import normalise_prompts

    ByteTokenizer().save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    normalise_prompts(tokenizer, "safe")
    ids = tokenizer(PROMPT)["input_ids"]
    assert ids == ByteTokenizer().encode(normalize(PROMPT)).tolist()
    assert ByteTokenizer().decode(ids) == "2³² é fine ㅋ Ａ\nend "
    assert tokenizer("")["input_ids"] == []
