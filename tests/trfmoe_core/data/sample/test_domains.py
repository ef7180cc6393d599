"""Three domains: own text, public text and held-out text, of which no paragraph is in two places."""

import json
from pathlib import Path

import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.sample.domains import DOMAINS, HELD_OUT, PUBLIC, DomainSize, build_domains
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import DataError

SMALL = DomainSize(owner=12_000, held_out=3_000, public=3_000)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_domains(tmp_path_factory.mktemp("domains") / "made", SMALL)


def paragraphs(text: str) -> set[str]:
    return {" ".join(block.split()) for block in text.split("\n\n") if len(block.split()) > 20}


def test_every_owner_has_text_and_some_is_public_and_held_out(domains: Path, tmp_path: Path) -> None:
    for domain in DOMAINS:
        corpus = prepare_corpus([str(domains / domain)], DataConfig(), ByteTokenizer(), tmp_path)
        assert {report.status for report in corpus.files} == {"ok"}
        assert {report.kind for report in corpus.files} == {"jsonl" if domain == "code" else "pdf"}
        assert sum(report.characters for report in corpus.files) > 9_000
        public, held_out = ((domains / name / f"{domain}.txt").read_text() for name in (PUBLIC, HELD_OUT))
        assert 2_000 < len(public) < 8_000 and 2_000 < len(held_out) < 8_000
        assert not paragraphs(public) & paragraphs(held_out)
        (source,) = corpus.sources
        pieces = [source.train.piece(number) for number in range(source.train.num_pieces)]
        own = paragraphs("\n\n".join(ByteTokenizer().decode(piece.tolist()) for piece in pieces))
        assert own and not own & (paragraphs(public) | paragraphs(held_out))
    law = (domains / HELD_OUT / "law.txt").read_text() + (domains / PUBLIC / "law.txt").read_text()
    assert "opyright" in law


def test_code_has_no_documentation_and_shares_no_definition(domains: Path) -> None:
    own = [json.loads(line)["text"] for line in (domains / "code" / "modules.jsonl").read_text().splitlines()]
    others = (domains / HELD_OUT / "code.txt").read_text() + (domains / PUBLIC / "code.txt").read_text()
    assert own and all('"""' not in text for text in own) and '"""' not in others
    assert not any(text in others for text in own)


def test_a_made_folder_stays_and_is_not_put_over_others(domains: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in domains.rglob("*")}
    assert build_domains(domains, SMALL) == domains
    assert {path: path.stat().st_mtime_ns for path in domains.rglob("*")} == before
    (tmp_path / "own.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files, such as"):
        build_domains(tmp_path, SMALL)
