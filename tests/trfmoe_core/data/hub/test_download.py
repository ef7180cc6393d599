import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from trfmoe_core.data.hub import download as hub
from trfmoe_core.data.hub import shards
from trfmoe_core.data.hub.client import access_token
from trfmoe_core.data.hub.download import ATTEMPTS, FIRST_ATTEMPTS, HubSet, fetch
from trfmoe_core.data.hub.shards import Download, read_progress
from trfmoe_core.errors import DataError

WANTED = HubSet("owner/name", "sample")


class BusyError(Exception):
    pass


class GoneError(Exception):
    pass


class FakeHub:
    """A data set of `rows` rows; every stream breaks after so many rows as `breaks` says next."""

    def __init__(self, rows: int, breaks: Iterable[tuple[int, Exception]] = (), text: str = "text") -> None:
        self.rows, self.breaks, self.text = rows, iter(breaks), text
        self.opened: list[int] = []
        self.given = 0

    def revision(self, wanted: HubSet) -> str:
        return "abc"

    def open(self, wanted: HubSet, revision: str, state: Any) -> "FakeRows":
        assert revision == "abc"
        self.opened.append(state or 0)
        return FakeRows(self, state or 0, next(self.breaks, None))

    def is_temporary(self, error: Exception) -> bool:
        return isinstance(error, BusyError)

    def explain(self, error: Exception, wanted: HubSet) -> str:
        return f"explained {type(error).__name__}"


class FakeRows:
    def __init__(self, source: FakeHub, start: int, break_: tuple[int, Exception] | None) -> None:
        self.source, self.position, self.break_ = source, start, break_

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for number in itertools.count(self.position):
            if number == self.source.rows:
                return
            if self.break_ and self.break_[0] == 0:
                raise self.break_[1]
            self.break_ = self.break_ and (self.break_[0] - 1, self.break_[1])
            self.position = number + 1
            self.source.given += 1
            text = None if number % 50 == 49 else f"row {number} \ud800"
            yield {self.source.text: text, "id": f"<{number}>", "language_score": "x" if number else 0.5, "more": {}}

    def state(self) -> Any:
        return self.position


def texts(folder: Path, download: Download) -> list[str]:
    return [text for shard in download.shards for text in pq.read_table(folder / shard.name)["text"].to_pylist()]


def expected(rows: int) -> list[str]:
    return [f"row {number} ?" for number in range(rows) if number % 50 != 49]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SHARD_ROWS", 100)
    monkeypatch.setattr(hub, "CHECKPOINT_ROWS", 10)


def test_everything_is_downloaded_once_and_more_is_added(tmp_path: Path) -> None:
    source = FakeHub(1000)
    some = fetch(WANTED, tmp_path, 150, source)
    assert (some.rows, some.complete, source.given) == (150, False, 153)
    assert texts(tmp_path, some) == expected(153)
    assert fetch(WANTED, tmp_path, 120, source) == some
    assert source.opened == [0]
    whole = fetch(WANTED, tmp_path, None, source)
    assert (whole.rows, whole.complete, whole.skipped) == (980, True, 20)
    assert texts(tmp_path, whole) == expected(1000)
    assert source.given == 1000
    assert fetch(WANTED, tmp_path, 10**9, source) == whole == read_progress(tmp_path)
    table = pq.read_table(tmp_path / whole.shards[0].name)
    assert table.column_names == ["text", "id", "language_score"]
    assert table["language_score"].to_pylist()[:2] == [0.5, None]


def test_passing_errors_are_waited_out_longer_each_time(tmp_path: Path) -> None:
    waits: list[float] = []
    breaks = [(35, BusyError()), (0, BusyError()), (0, BusyError()), (0, BusyError()), (25, BusyError())]
    source = FakeHub(300, breaks)
    done = fetch(WANTED, tmp_path, None, source, sleep=waits.append)
    assert texts(tmp_path, done) == expected(300)
    assert source.opened == [0, 30, 30, 30, 30, 50]
    for wait, plain in zip(waits, (1, 2, 4, 8, 1), strict=True):
        assert 0.75 * plain <= wait <= 1.25 * plain


def test_silence_ends_in_an_explanation_and_loses_nothing(tmp_path: Path) -> None:
    waits: list[float] = []
    with pytest.raises(DataError, match=rf"owner/name \(sample\): explained BusyError \(tried {FIRST_ATTEMPTS} times"):
        fetch(WANTED, tmp_path, 50, FakeHub(100, itertools.repeat((0, BusyError()))), sleep=waits.append)
    assert len(waits) == FIRST_ATTEMPTS - 1
    breaks = itertools.chain([(150, BusyError())], itertools.repeat((0, BusyError())))
    with pytest.raises(DataError, match=f"tried {ATTEMPTS} times"):
        fetch(WANTED, tmp_path, None, FakeHub(400, breaks), sleep=waits.append)
    kept = read_progress(tmp_path)
    assert kept is not None
    assert texts(tmp_path, kept) == expected(150)
    source = FakeHub(400)
    assert texts(tmp_path, fetch(WANTED, tmp_path, None, source)) == expected(400)
    assert source.opened == [150]


def test_other_errors_end_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"owner/name \(sample\): explained GoneError$"):
        fetch(WANTED, tmp_path, 50, FakeHub(100, [(0, GoneError())]), sleep=lambda _: pytest.fail("waited"))
    with pytest.raises(DataError, match="no column 'text'; it has body, id, language_score, more"):
        fetch(WANTED, tmp_path / "b", 50, FakeHub(100, text="body"))
    with pytest.raises(DataError, match="no rows with text"):
        fetch(WANTED, tmp_path / "c", 50, FakeHub(0))


@pytest.mark.parametrize("kill_at", ["parquet", "progress", "first"])
def test_a_download_that_was_killed_goes_on(tmp_path: Path, kill_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    calls = iter(range(100))
    name = "write_bytes" if kill_at != "progress" else "write_text"
    real = getattr(shards, name)

    def kill(path: Path, data: Any) -> None:
        if next(calls) == (0 if kill_at == "first" else 2):
            raise KilledError
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(shards, name, kill)
        with pytest.raises(KilledError):
            fetch(WANTED, tmp_path, None, FakeHub(500))
    assert texts(tmp_path, fetch(WANTED, tmp_path, None, FakeHub(500))) == expected(500)


def test_a_shard_that_was_cut_off_is_downloaded_again(tmp_path: Path) -> None:
    first = fetch(WANTED, tmp_path, None, FakeHub(300))
    (tmp_path / first.shards[1].name).write_bytes(b"PAR1")
    assert read_progress(tmp_path) is None
    assert fetch(WANTED, tmp_path, None, FakeHub(300)) == first


def test_a_folder_holds_one_data_set_only_and_must_be_writable(tmp_path: Path) -> None:
    fetch(WANTED, tmp_path / "a", 10, FakeHub(300))
    with pytest.raises(DataError, match="it holds owner/name sample train -, not owner/name other train -"):
        fetch(HubSet("owner/name", "other"), tmp_path / "a", 10, FakeHub(300))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"download folder .*file/b: Not a directory; free some space"):
        fetch(WANTED, tmp_path / "file" / "b", 10, FakeHub(300))


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert access_token([tmp_path]) is None
    (tmp_path / ".env").write_text("# keys\nHF_TOKENS=x\nexport HUGGING_FACE_HUB_TOKEN='hf_old'\n")
    assert access_token([tmp_path / "none", tmp_path]) == "hf_old"
    (tmp_path / ".env").write_text('HUGGING_FACE_HUB_TOKEN=hf_old\nHF_TOKEN="hf_file"\n')
    assert access_token([tmp_path]) == "hf_file"
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_env")
    assert access_token([tmp_path]) == "hf_env"
    monkeypatch.setenv("HF_TOKEN", " hf_first ")
    assert access_token([tmp_path]) == "hf_first"
