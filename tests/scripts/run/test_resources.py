"""Simulated nodes get whole CPUs, a fair share of a GPU, and Ray starts no more actors than can work."""

import os

import pytest

from scripts.run import resources
from scripts.run.resources import count_gpus, simulation_resources
from trfmoe_core import processors
from trfmoe_core.config import Recipe


@pytest.mark.parametrize(
    ("cores", "threads", "gpus", "device", "expected"),
    [
        (2, 1, 0, "auto", (1, 2, 0.0, 0)),
        (16, 1, 0, "auto", (1, 3, 0.0, 0)),
        (16, "auto", 0, "auto", (5, 15, 0.0, 0)),
        (2, "auto", 0, "auto", (1, 2, 0.0, 0)),
        (1, 4, 0, "auto", (1, 1, 0.0, 0)),
        (8, 4, 0, "auto", (4, 8, 0.0, 0)),
        (16, 1, 1, "auto", (1, 3, 0.333, 1)),
        (16, 1, 8, "auto", (1, 3, 1.0, 8)),
        (16, 1, 1, "cpu", (1, 3, 0.0, 0)),
    ],
)
def test_resources(
    cores: int,
    threads: int | str,
    gpus: int,
    device: str,
    expected: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(processors, "usable_cores", lambda: cores)
    monkeypatch.setattr(resources, "count_gpus", lambda: gpus)
    recipe = Recipe.model_validate({"training": {"threads": threads, "device": device}})
    assert tuple(simulation_resources(recipe).values()) == expected


@pytest.mark.parametrize(
    ("cores", "gpus", "devices", "expected"),
    [(8, 0, 2, (2, 6, 0.0, 0)), (2, 0, 4, (2, 2, 0.0, 0)), (16, 8, 4, (4, 8, 4.0, 8)), (16, 2, "all", (2, 2, 2.0, 2))],
)
def test_nodes_with_several_devices_get_them(
    cores: int, gpus: int, devices: int | str, expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(resources, "count_gpus", lambda: gpus)
    recipe = Recipe.model_validate({"training": {"threads": 1, "devices": devices}})
    assert tuple(simulation_resources(recipe).values()) == expected


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, count in (("", 0), ("-1", 0), ("0", 1), ("0,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert count_gpus() == count
