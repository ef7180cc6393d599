"""What a run may keep on a node's disk: leavings of other runs go first, other people's files never."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.kept.disk_limit import DiskLimit, state_bytes
from clients.limit_checks import OverLimitsError
from clients.refusals import RefusedError, refused_as
from clients.worker import Worker
from tests.conftest import words
from tests.federation import run_recipe
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.errors import DataError

MB = 1 << 20


def node(tmp_path: Path, **limits: object) -> NodeSettings:
    raw = {"name": "ada", "data": ["x"], "state_dir": str(tmp_path / "state"), "cache_dir": str(tmp_path / "cache")}
    return NodeSettings.model_validate({**raw, "limits": limits})


def put(path: Path, megabytes: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(megabytes * MB))
    return path


def test_what_is_left_of_other_runs_goes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = put(tmp_path / "state" / "old" / "ada" / "round-000001.safetensors", 4)
    heads = put(tmp_path / "state" / "old" / "ada" / "heads.jsonl", 0)
    mine = put(tmp_path / "state" / "run" / "ada" / "round-000001.safetensors", 2)
    theirs = put(tmp_path / "state" / "old" / "bob" / "round-000001.safetensors", 4)
    friends = put(tmp_path / "state" / "photos" / "ada" / "beach.jpg", 4)
    corpus = put(tmp_path / "cache" / "corpora" / ("0" * 64) / "0.train.tokens", 3)
    strange = put(tmp_path / "cache" / "corpora" / "notes" / "mine.txt", 1)
    DiskLimit(node(tmp_path, disk_mb=10), "run", MB).make()
    assert old.exists()
    with caplog.at_level(logging.WARNING):
        DiskLimit(node(tmp_path, disk_mb=7), "run", MB).make()
    assert not old.exists() and corpus.exists() and "limits.disk_mb" in caplog.text
    DiskLimit(node(tmp_path, disk_mb=4), "run", MB).make()
    assert not corpus.exists()
    with pytest.raises(OverLimitsError) as caught:
        DiskLimit(node(tmp_path, disk_mb=4), "run", 6 * MB).make()
    assert (caught.value.refusal.asked, caught.value.refusal.granted) == (7, 4)
    assert all(path.exists() for path in (heads, mine, theirs, friends, strange))


def test_a_state_that_the_disk_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="MB are free") as caught:
        DiskLimit(node(tmp_path), "run", 1 << 60).make()
    assert caught.value.refusal.code == "disk"
    assert not (tmp_path / "state").exists()


def test_text_that_outgrows_the_room_is_not_prepared_to_its_end(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.kept.disk_limit._LOOK_S", 0.0)
    recipe = tiny_recipe(data={"processes": 1})
    for number in range(8):
        (tmp_path / "texts" / "ada" / f"{number}.txt").write_text(words(100 + number, 400_000))
    large = node(tmp_path, disk_mb=16).model_copy(update={"data": recipe.nodes[0].data})
    with pytest.raises(OverLimitsError, match=r"limits\.disk_mb"):
        Worker(large, recipe.for_nodes().model_dump(mode="json")).describe("run")
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept <= 16 * MB
    assert not list((tmp_path / "cache" / "corpora").glob("*/corpus.json"))


@pytest.mark.parametrize("transport", [{}, {"updates": "int8", "difference": "bfloat16", "broadcast": "bfloat16"}])
def test_the_estimate_covers_what_a_run_keeps(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], transport: dict[str, str]
) -> None:
    recipe = tiny_recipe(transport=transport)
    run_recipe(recipe)
    (folder,) = (tmp_path / "state").glob("*/ada")
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert kept <= state_bytes(recipe, 320) < 3 * kept


def test_a_refusal_that_a_reader_of_data_wraps_keeps_its_code() -> None:
    """The hub's downloader, for one, turns whatever its progress raises into an error of the data set."""
    with pytest.raises(OverLimitsError), refused_as("data"):
        try:
            raise OverLimitsError("limits-disk", "too much", 7, 4)
        except OverLimitsError as error:
            raise DataError("data set some/thing: too much") from error
