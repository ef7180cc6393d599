"""TensorBoard reads back what the sink wrote, and nothing that goes wrong there ends a run."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from server.sinks import registry
from server.sinks.registry import lacking, sinks_of
from server.sinks.scalars import metrics
from server.sinks.tensorboard_sink import FOLDER
from tests.scripts.journal import events
from trfmoe_core.config import LogConfig

pytest.importorskip("tensorboard")


def read(run_dir: Path) -> dict[str, dict[int, float]]:
    """Name -> round -> value, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_dir / FOLDER))
    reader.Reload()
    return {name: {point.step: point.value for point in reader.Scalars(name)} for name in reader.Tags()["scalars"]}


def test_the_curves_are_those_of_wandb(tmp_path: Path) -> None:
    (sink,) = sinks_of(LogConfig(tensorboard=True, sinks=["tensorboard"]), tmp_path)
    drawn: dict[str, dict[int, Any]] = {}
    for event in events():
        sink(event)
        values = metrics(event)
        for name, value in values.items():
            if name != "round":
                drawn.setdefault(name, {})[values["round"]] = pytest.approx(value, rel=1e-6)
    assert drawn["held_out/bits_per_byte"].keys() == {0, 1, 2, 3} and "outvoted/carol" in drawn
    assert read(tmp_path) == drawn


def test_a_repeated_round_stands_once(tmp_path: Path) -> None:
    made = events()
    (sink,) = sinks_of(LogConfig(sinks=["tensorboard"]), tmp_path)
    for event in made:
        if event.get("round", 0) < 3 and event["event"] != "run_finished":
            sink({**event, "train_loss": 99.0} if event.get("round") == 2 else event)
    (again,) = sinks_of(LogConfig(sinks=["tensorboard"]), tmp_path)
    for event in made:
        if event["event"] == "run_started":
            again({**event, "resumed_from": 1})
        elif event.get("round", 0) >= 2:
            again(event)
    assert read(tmp_path)["round/train_loss"] == {1: 4.0, 2: 3.0, 3: 2.0}


@pytest.mark.parametrize("trouble", ["a file in the place of the folder", "no package"])
def test_trouble_is_one_warning_and_the_run_goes_on(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if trouble == "no package":
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    else:
        (tmp_path / FOLDER).write_text("")
    (sink,) = sinks_of(LogConfig(tensorboard=True), tmp_path)
    with caplog.at_level(logging.WARNING):
        for event in events():
            sink(event)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "TensorBoard is off" in caplog.text


def test_a_missing_package_is_named_for_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = LogConfig(tensorboard=True, wandb="offline", sinks=["prometheus"])
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "tensorboard" else object())
    (text,) = lacking(chosen)
    assert text.startswith("tensorboard shows nothing") and text.endswith("pip install tensorboard")
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert len(lacking(chosen)) == 2 and not lacking(LogConfig())
