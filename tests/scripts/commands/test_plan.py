"""`trfmoe plan`: the numbers for programs, the limits for people, wrong input refused."""

import json
from typing import Any

import pytest

from scripts.main import main
from trfmoe_core import processors
from trfmoe_core.training import device


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as exit_info:
        main(["plan", *arguments, "--json"])
    assert not exit_info.value.code
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_numbers_of_a_federation_of_31(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned(capsys, "--nodes", "31", "--layers", "1", "--experts", "155")
    assert (result["load_min"], result["load_max"]) == (15, 15)
    assert (result["lambda"], result["lambda_bound"], result["captured_2"], result["captured_3"]) == (1, 1, 1, 3)
    assert result["zone_violations"] == 0
    assert result["ms"] > 0


def test_zones_and_what_goes_wrong_with_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned(capsys, "--nodes", "31", "--experts", "155", "--zones", "4")
    assert (result["lambda"], result["zone_violations"], result["captured_by_zone"], result["notes"]) == (2, 0, 0, [])
    result = planned(capsys, "--nodes", "6", "--experts", "8", "--zones", "2")
    assert result["zone_violations"] == 8
    assert "only 2 zones" in result["notes"][0]


def test_a_recipe_and_options_that_replace_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned(capsys, "configs/three_nodes.yaml")
    assert (result["nodes"], result["experts"], result["captured_2"], result["zones"]) == (3, 32, 32, 3)
    result = planned(capsys, "configs/three_nodes.yaml", "--nodes", "9", "--layers", "2")
    assert (result["nodes"], result["experts"], result["zones"]) == (9, 16, 0)


def test_what_auto_means_on_this_machine_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "usable_cores", lambda: 16)
    monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = planned(capsys, "configs/three_nodes.yaml")["training"]
    assert found == {"device": "cpu", "threads": 16, "simulated_threads": 5, "precision": "bfloat16"}
    with pytest.raises(SystemExit):
        main(["plan", "configs/tiny.yaml"])
    line = "training   on a machine like this one: cpu, 1 thread, float32; in a simulation 1 thread a node"
    assert line in capsys.readouterr().out
    assert planned(capsys, "--nodes", "31", "--experts", "155")["training"] is None


def test_people_read_what_a_placement_does_not_give(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--nodes", "101", "--experts", "101"])
    text = capsys.readouterr().out
    assert "captured   at most 1 of 101 experts by the worst 2 colluders, at most 3 by the worst 3" in text
    assert "mean loss under random faults is the same" in text
    assert "with 3 nodes" not in text
    assert "below 7 nodes" not in text


@pytest.mark.parametrize(
    ("recipe", "told", "untold"),
    [
        ("three_nodes", "any 2 own everything", "below 7"),
        ("strangers", "below 7 nodes", "any 2 own"),
        ("nine_nodes", "2 nodes that collude decide every expert that they share", "3 nodes any"),
    ],
)
def test_warnings_are_about_the_nodes_that_there_are(
    capsys: pytest.CaptureFixture[str], recipe: str, told: str, untold: str
) -> None:
    with pytest.raises(SystemExit):
        main(["plan", recipe])
    text = capsys.readouterr().out
    assert told in text
    assert untold not in text


def test_what_a_run_costs_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "nine_nodes", "--bandwidth", "100", "--tokens-per-second", "2000"])
    text = capsys.readouterr().out
    for part in (
        "parameters 3.6M, 851k of them used by a token, 1.43M on a node",
        "length     300 steps of a node in 12 rounds of 25 steps, 307k tokens",
        "for the coordinator: program",
        "more on a node of a deployment: SuperNode and executor",
        "a round for the network",
        "on the coordinator; prepared text comes on top",
        "placement  48 experts in 4 layers on 9 nodes",
    ):
        assert part in text, text
    assert "warning" not in text
    result = planned(capsys, "nine_nodes", "--set", "rounds.num_rounds=2")
    assert (result["rounds"], result["load_max"], result["seconds"]) == (2, 16, None)
    assert result["memory_node_bytes"] == sum(result["memory_node"].values())
    sent = result["traffic"]["node_down"] + result["traffic"]["node_up"]
    assert result["memory_supernode_bytes"] > 200e6 + sent


def test_a_run_on_one_machine_has_no_placement(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned(capsys, "shakespeare", "--tokens-per-second", "1000")
    assert (result["steps"], result["tokens_node"]) == (2000, 2000 * 12 * 64)
    assert "captured_2" not in result
    assert planned(capsys, "shakespeare", "--nodes", "9")["nodes"] == 9


def test_a_few_steps_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned(capsys, "tiny", "--measure")
    assert result["tokens_per_s"] == result["measured"]["tokens_per_s"] > 0
    assert result["seconds_training"] > 0


def test_more_replicas_bear_more_colluders(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned(capsys, "--nodes", "11", "--experts", "22", "--replication", "5")
    assert (result["load_min"], result["load_max"]) == (10, 10)
    assert (result["captured_2"], result["lambda"] >= result["lambda_bound"]) == (0, True)
    assert 0 < result["captured_3"] <= 4
    assert "3 nodes that collude decide every expert" in result["limits"][0]
    recipe = planned(capsys, "configs/three_nodes.yaml", "--nodes", "9", "--replication", "5")
    assert (recipe["replication"], recipe["load_min"] + recipe["load_max"]) == (5, 17 + 18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to plan"),
        (["--nodes", "9"], "nothing to plan"),
        (["--nodes", "2", "--experts", "4"], "range"),
        (["--nodes", "9", "--experts", "4", "--measure"], "without a recipe only experts are placed"),
        (["tiny", "--device", "tpu"], "choose cpu or cuda"),
        (["tiny", "--set", "vote=loudest"], "'loudest' is unknown"),
        (["tiny", "--nodes", "3", "--replication", "5"], "every expert is trained by 5 nodes"),
        (["--nodes", "9", "--experts", "4", "--replication", "4"], "replication 4: an even number of replicas"),
        (["--nodes", "9", "--experts", "4", "--replication", "1"], "replication 1: a vote needs at least 3"),
        (["--nodes", "4", "--experts", "4", "--replication", "5"], "but every expert needs 5 distinct ones"),
    ],
)
def test_wrong_input(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["plan", *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
