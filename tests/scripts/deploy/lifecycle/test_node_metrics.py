"""A node's figures are read from its own notes, and served to its owner's machine alone."""

import json
import urllib.request
from pathlib import Path

import pytest
import yaml

from clients.kept.own_rounds import ROUNDS_FILE
from clients.kept.progress import PROGRESS_FILE, progress_writer, read_progress
from scripts.deploy.lifecycle.node_metrics import NodeFigures, serve_node
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.trainer import StepMetrics

pytest.importorskip("prometheus_client")
RUN = "0123456789abcdef"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "ada"
    kept = tmp_path / "state" / RUN / "ada"
    kept.mkdir(parents=True)
    folder.mkdir()
    settings = {"name": "ada", "data": ["papers"], "state_dir": str(tmp_path / "state")}
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    answer = {"time": 1000.0, "run_name": "clinics", "steps": 25, "loss": 2.5, "bits_per_byte": 1.25, "blocks": 3}
    notes = [
        {**answer, "round": 1, "bytes": 700},
        {**answer, "round": 2, "bytes": 300, "loss": 2.25},
        {"time": 1001.0, "verdict": {"round": 1, "accepted": 3, "outvoted": 0}},
        {"time": 1002.0, "verdict": {"round": 2, "accepted": 1, "outvoted": 2}},
    ]
    (kept / ROUNDS_FILE).write_text("".join(json.dumps(note) + "\n" for note in notes))
    return folder


def test_figures_of_a_node(node: Path) -> None:
    note = progress_writer(node.parent / "state" / RUN / "ada", 3, 25, before=50)
    note(StepMetrics(57, 2.0, 1e-3, 512))
    server, thread = serve_node(node, 0)
    try:
        assert server.server_address[0] == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    labels = '{node="ada",run="clinics 01234567"}'
    for line in (
        f"trfmoe_node_round{labels} 2.0",
        f"trfmoe_node_step{labels} 7.0",
        f"trfmoe_node_steps{labels} 25.0",
        f"trfmoe_node_train_loss{labels} 2.25",
        f"trfmoe_node_sent_bytes_total{labels} 1000.0",
        f"trfmoe_node_outvoted_blocks_total{labels} 2.0",
        f"trfmoe_node_accepted_rounds_total{labels} 1.0",
    ):
        assert line in text, text


def test_without_progress_there_is_no_step(node: Path) -> None:
    assert not [s for family in NodeFigures(node).collect() for s in family.samples if s.name == "trfmoe_node_step"]


def test_what_cannot_be_served_is_a_sentence(node: Path) -> None:
    with pytest.raises(ConfigError, match=r"no node\.yaml"):
        serve_node(node.parent, 0)
    server, thread = serve_node(node, 0)
    try:
        with pytest.raises(ConfigError, match="choose another"):
            serve_node(node, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_progress_is_noted_at_most_once_a_second_and_at_the_last_step(tmp_path: Path) -> None:
    note = progress_writer(tmp_path, 4, 3, before=9)
    seen = []
    for step in (10, 11, 12):
        note(StepMetrics(step, 1.0, 1e-3, 8))
        found = read_progress(tmp_path)
        assert found is not None
        seen.append((found.round, found.step, found.steps))
    assert seen == [(4, 1, 3), (4, 1, 3), (4, 3, 3)]
    assert found is not None and found.text == "training step 3 of 3"
    (tmp_path / PROGRESS_FILE).write_text("[")
    assert read_progress(tmp_path) is None and read_progress(tmp_path / "nowhere") is None
