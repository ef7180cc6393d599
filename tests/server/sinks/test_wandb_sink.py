"""W&B works offline without a key, and nothing that it does ends a run."""

import logging
from pathlib import Path

import pytest
import wandb

from server.sinks.scalars import metrics
from server.sinks.wandb_sink import WandbSink
from tests.scripts.journal import events


@pytest.fixture(autouse=True)
def _no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))


def test_metrics_of_events() -> None:
    drawn = [values for event in events() if (values := metrics(event))]
    trained = {"train/alice/loss": 4.0, "train/alice/dead_experts": 1}
    assert drawn[0] == {"round": 1, **trained}
    drawn = [values for values in drawn if not any(key.startswith("train/") for key in values)]
    assert drawn[0] == {
        "round": 0,
        "held_out/loss": 4.0,
        "held_out/bits_per_byte": 8.01,
        "held_out/perplexity": 54.598,
        "held_out/alice/bits_per_byte": 8.0,
        "held_out/bob/bits_per_byte": 8.01,
        "held_out/carol/bits_per_byte": 8.02,
    }
    assert drawn[-2]["outvoted/carol"] == 3
    assert drawn[-2]["verdicts/majority"] == 3


def test_offline_needs_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = WandbSink("offline", "trfmoe-test", tmp_path)
    with caplog.at_level(logging.WARNING):
        for event in events():
            sink(event)
    assert not caplog.records
    assert list(tmp_path.glob("wandb/offline-run-*/run-abc.wandb"))


def test_a_failure_is_one_warning_and_the_end_of_the_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def broken(**_: object) -> None:
        calls.append(1)
        raise wandb.errors.UsageError("no API key configured")

    monkeypatch.setattr(wandb, "init", broken)
    sink = WandbSink("online", "trfmoe-test", tmp_path)
    with caplog.at_level(logging.WARNING):
        for event in events():
            sink(event)
    assert len(calls) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no API key configured" in caplog.text
