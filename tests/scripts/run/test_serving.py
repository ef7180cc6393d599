from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from scripts.run.serving import normalise_prompts
from trfmoe_core.data.documents.clean import normalize
from trfmoe_core.data.tokenizers.byte import ByteTokenizer

PROMPT = "2³² e\u0301\u00a0ﬁne\x00 ㅋ Ａ\r\nend "


def test_served_prompts_are_normalised_like_training_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerBase, "from_pretrained", PreTrainedTokenizerBase.from_pretrained)
    ByteTokenizer().save(tmp_path)
    normalise_prompts("safe")
    ids = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)(PROMPT)["input_ids"]
    assert ids == ByteTokenizer().encode(normalize(PROMPT)).tolist()
    assert ByteTokenizer().decode(ids) == "2³² é fine ㅋ Ａ\nend "
    assert AutoTokenizer.from_pretrained(tmp_path)("")["input_ids"] == []
