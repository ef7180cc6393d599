"""The wire's benchmarks on a small model: that they count what travels, and that less is less."""

import itertools

import pytest

from scripts.bench import wire as bench_wire
from trfmoe_core.blocks import TRUNK, BlockLayout
from trfmoe_core.config import ModelConfig
from trfmoe_core.model.transformer import parameter_shapes

SMALL = {"layers": 2, "width": 64, "heads": 2, "experts": 24, "top_k": 2, "expert_width": 64, "context": 32}


def test_the_table_counts_every_byte_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_wire, "MODEL", SMALL)
    monkeypatch.setattr(bench_wire, "VOCAB", 512)
    result = bench_wire.measure(1)
    layout = BlockLayout.of(parameter_shapes(ModelConfig.model_validate(SMALL), 512))
    numel = {name: spec.numel for name, spec in layout.specs.items()}
    total, trunk = sum(numel.values()), numel[TRUNK]
    assert result["trunk_share"] == trunk / total
    nine = result["bytes"]["9"]
    assert nine["FedAvg float32"]["ratio"] == 1.0
    held = trunk + (total - trunk) / 3
    expected = {
        "train float32": (4 * total, 4 * held),
        "train bfloat16": (2 * total, 2 * held),
        "train int8 differences, int8 up": (total * (1 + 4 / 64), held * (1 + 4 / 64)),
        "absent int8 differences, int8 up": (held * (1 + 4 / 64), held * (1 + 4 / 64)),
    }
    for way, (down, up) in expected.items():
        # Header and index come on top.
        assert down < nine[way]["down"] < down + 40_000
        assert up < nine[way]["up"] < up + 40_000
    for way, (down, up) in expected.items():
        assert nine[way]["ratio"] == pytest.approx(8 * total / (down + up), rel=0.03), "FedAvg sends 4 bytes both ways"
    assert result["bytes_ratio_fedavg_9_int8"] == max(row["ratio"] for row in nine.values())
    assert 1.9 < nine["train bfloat16 down, int8 up"]["ratio"] / nine["train float32"]["ratio"] < 2.5
    assert set(result["reached"]) == set(bench_wire.GOALS)


def test_the_codec_is_timed_in_bytes_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = BlockLayout.of(parameter_shapes(ModelConfig.model_validate(SMALL), 512))
    size = 4 * sum(spec.numel for spec in layout.specs.values())
    clock = itertools.count()  # every look at the clock is a second later
    monkeypatch.setattr(bench_wire.time, "process_time", lambda: next(clock))
    for speeds in bench_wire.codec(layout, 2).values():
        assert speeds["encode_gb_s"] == speeds["decode_gb_s"] == pytest.approx(size / 1e9)
        assert speeds["codec_gb_s"] == pytest.approx(size / 2e9), "both together take two seconds"
