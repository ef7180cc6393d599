"""The figures are served on this machine while the run goes on, and end with it."""

import logging
import re
import socket
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest

from scripts.deploy.lifecycle.node_metrics import COUNTERS, GAUGES
from server.sinks.registry import SINKS
from tests.scripts.journal import events
from trfmoe_core.config import LogConfig

prometheus_client = pytest.importorskip("prometheus_client")


def test_figures_of_a_run(tmp_path: Path) -> None:
    sink = SINKS.find("prometheus")(LogConfig(prometheus_port=0), tmp_path / "demo-001")
    *before, last = events()
    for event in before:
        sink({**event, "tokens": 100} if event["event"] == "node_reply" else event)
    host, port = sink.server.server_address  # type: ignore[attr-defined]
    assert host == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for line in (
        'trfmoe_round{run="demo-001"} 3.0',
        'trfmoe_bits_per_byte{node="",run="demo-001"} 2.01',
        'trfmoe_votes_total{fate="outvoted",node="carol",run="demo-001"} 6.0',
        'trfmoe_tokens_total{node="alice",run="demo-001"} 300.0',
        'trfmoe_bytes_total{direction="down",run="demo-001"} 9e+06',
        'trfmoe_replies_total{node="bob",run="demo-001",status="accepted"} 3.0',
    ):
        assert line in text, line
    sink(last)
    with pytest.raises(URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_taken_port_does_not_stop_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken, caplog.at_level(logging.WARNING):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sink = SINKS.find("prometheus")(LogConfig(prometheus_port=taken.getsockname()[1]), tmp_path)
        for event in events():
            sink(event)
    assert "log.prometheus_port" in caplog.text and "choose another port" in caplog.text


def test_the_dashboard_and_the_page_name_only_figures_that_exist(tmp_path: Path) -> None:
    sink = SINKS.find("prometheus")(LogConfig(prometheus_port=0), tmp_path)
    for event in events():
        sink({**event, "tokens": 100} if event["event"] == "node_reply" else event)
    made = {family.name for family in sink.registry.collect()}  # type: ignore[attr-defined]
    docs = Path(__file__).parents[3] / "docs"
    made |= {name for name, *_ in (*GAUGES, *COUNTERS)}
    for page in ("monitoring.md", "grafana.json"):
        named = {name.removesuffix("_total") for name in re.findall(r"trfmoe_[a-z_]+", (docs / page).read_text())}
        assert named <= made, page
    assert named and made <= {
        n.removesuffix("_total") for n in re.findall(r"`(trfmoe_\w+)`", (docs / "monitoring.md").read_text())
    }
