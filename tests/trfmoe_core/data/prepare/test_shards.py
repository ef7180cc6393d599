import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.places import ROOT
from tests.trfmoe_core.data.conftest import prose
from trfmoe_core.config import DataConfig
from trfmoe_core.data.prepare import shards as shards_module
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.prepare.shards import Documents, Encoder, Shard, ShardWriter, grouped
from trfmoe_core.data.prepare.split import digest
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.data.tokenizers.train import train_bpe
from trfmoe_core.errors import DataError

ENCODER = Encoder(ByteTokenizer(), 256)


def some_documents(count: int, sentences: int = 8) -> list[tuple[str, int, str]]:
    return [(prose(number * 50, sentences), number // 3, f"row {number}") for number in range(count)]


def test_a_shard_holds_every_piece_and_where_it_comes_from(tmp_path: Path) -> None:
    (documents,) = grouped(iter(some_documents(4)))
    ENCODER.encode(documents, tmp_path / "x.npz")
    shard = Shard(tmp_path / "x.npz")
    tokens, sizes, num_bytes, digests, owners, text, units, places = shard.load(
        "tokens", "sizes", "bytes", "digests", "documents", "text", "units", "places"
    )
    assert (units.tolist(), places.tolist()) == ([0, 0, 0, 1], [b"row 0", b"row 1", b"row 2", b"row 3"])
    ends, text_ends = np.cumsum(sizes), np.cumsum(num_bytes)
    found: dict[int, list[str]] = {}
    for number, owner in enumerate(owners):
        piece = tokens[ends[number] - sizes[number] : ends[number]]
        data = text.tobytes()[text_ends[number] - num_bytes[number] : text_ends[number]]
        assert (piece[0], bytes(piece[1:].astype(np.uint8))) == (256, data)
        assert digest(data.decode())[:8] == int(digests[number, 0]).to_bytes(8, "big")
        found.setdefault(int(owner), []).append(data.decode())
    for number, (whole, _, _) in enumerate(some_documents(4)):
        assert "".join("".join(found[number]).split()) == "".join(whole.split())


def test_the_key_is_of_all_that_decides_the_shard() -> None:
    (documents,) = grouped(iter(some_documents(2)))
    other_text = Documents([*documents.texts[:1], "x"], documents.units, documents.places, 9)
    other_place = Documents(documents.texts, documents.units, ["row 0", "row 9"], documents.size)
    shifted = Documents(
        [documents.texts[0] + documents.texts[1][:1], documents.texts[1][1:]], [0, 0], documents.places, 9
    )
    bpe = train_bpe([prose(0, 40)], 300, "x")
    keys = {ENCODER.key(one) for one in (documents, other_text, other_place, shifted)}
    keys |= {Encoder(ByteTokenizer(), 257).key(documents), Encoder(bpe, 256).key(documents)}
    assert len(keys) == 6
    assert ENCODER.key(next(grouped(iter(some_documents(2))))) in keys


def test_runs_are_bounded_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "SHARD_CHARACTERS", 2000)
    runs = list(grouped(iter(some_documents(30))))
    assert len(runs) > 5
    assert all(run.size < 2000 + max(map(len, run.texts)) for run in runs)
    assert [text for run in runs for text in run.texts] == [text for text, _, _ in some_documents(30)]
    assert not list(grouped(iter([])))


def test_several_processes_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "IN_PROCESS_CHARACTERS", 2000)
    monkeypatch.setattr(shards_module, "SHARD_CHARACTERS", 1500)
    encoder = Encoder(train_bpe([prose(0, 100)], 400, "x"), 256)
    written = []
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        folder.mkdir()
        with ShardWriter(folder, encoder, processes) as writer:
            found = [writer.write(run) for run in grouped(iter(some_documents(20)))]
            writer.finish()
        assert all(shard.whole for shard in found)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert len(written[0]) > 4


def test_whole_shards_are_kept_and_torn_ones_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "SHARD_CHARACTERS", 1500)
    runs = list(grouped(iter(some_documents(20))))
    with ShardWriter(tmp_path, ENCODER, 1) as writer:
        shards = [writer.write(run) for run in runs]
        good = shards[1].path.read_bytes()
        shards[0].path.write_bytes(shards[0].path.read_bytes()[:-100])
        torn = bytearray(good)
        torn[len(torn) // 2] ^= 1
        shards[1].path.write_bytes(torn)
        shards[2].path.unlink()
        assert [shard.whole for shard in shards[:4]] == [False, False, False, True]
        wrote = []
        real = Encoder.encode

        def encode(self: Encoder, documents: Documents, path: Path) -> None:
            wrote.append(path)
            real(self, documents, path)

        monkeypatch.setattr(Encoder, "encode", encode)
        assert [writer.write(run) for run in runs] == shards
    assert wrote == [shard.path for shard in shards[:3]]
    assert shards[1].path.read_bytes() == good


class Deadly(ByteTokenizer):
    """Ends the process that encodes with it, as the system does where memory runs out."""

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def test_a_process_that_dies_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "IN_PROCESS_CHARACTERS", 0)
    with ShardWriter(tmp_path, Encoder(Deadly(), 256), 2) as writer:
        writer.write(next(grouped(iter(some_documents(2)))))
        with pytest.raises(DataError, match=r"killed.*data\.processes"):
            writer.finish()


PROGRAM = """
import sys
from pathlib import Path
from trfmoe_core.config import DataConfig
from trfmoe_core.data.prepare import shards
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer
if __name__ == "__main__":
    shards.IN_PROCESS_CHARACTERS, shards.SHARD_CHARACTERS = 0, 20_000
    config = DataConfig(piece_bytes=256, processes=2)
    corpus = prepare_corpus([sys.argv[1]], config, load_tokenizer("byte"), Path(sys.argv[2]))
    print(corpus.key)
"""


def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    for number in range(10):
        (tmp_path / "in" / f"{number:02}.jsonl").write_text(
            "\n".join(json.dumps({"text": prose(1000 * number + row, 40)}) for row in range(120))
        )
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "in"), str(tmp_path / "cache")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    home = tmp_path / "cache" / "corpora"
    until = time.monotonic() + 60
    while len(list(home.glob("*.shards/*.npz"))) < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert len(list(home.glob("*.shards/*.npz"))) >= 3
    assert not list(home.glob("*/corpus.json"))
    # The processes that it started end with it.
    wait_for_no_process_of(process.pid)
    key = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()
    # One process and larger shards, never interrupted, give the same corpus.
    config = DataConfig(piece_bytes=256, processes=1)
    assert prepare_corpus([str(tmp_path / "in")], config, ByteTokenizer(), tmp_path / "other").key == key
    one, other = (tmp_path / name / "corpora" / key for name in ("cache", "other"))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }
    assert not list(home.glob("*.shards"))


def wait_for_no_process_of(group: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("processes outlive the one that started them")
