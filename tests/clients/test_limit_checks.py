"""A node's owner decides what its node does: a run beyond the limits is refused, a round beyond them is sat out."""

import datetime
import itertools
import json
import os
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, MessageType, RecordDict

from clients import limit_checks, rank, training
from clients.limit_checks import (
    OverLimitsError,
    check_evaluation,
    check_hours,
    check_memory,
    check_round,
    check_size,
    within_limits,
)
from clients.refusals import RefusedError
from clients.settings import cache_folder, state_folder
from clients.worker import Worker
from server.run_folder.folder import RunFolder
from strategies.exchange.messages import TrainReply, TrainRequest, pack, read_header
from strategies.exchange.refusals import sentence
from strategies.membership.lost_requests import PING
from tests.clients.test_worker import Coordinator
from tests.federation import grid_of, of_kind, run_recipe
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import NodeSettings, Recipe, load_recipe
from trfmoe_core.errors import WireError
from trfmoe_core.model.transformer import parameter_shapes
from trfmoe_core.training.ranks import ALONE
from trfmoe_core.wire import Parcel

NOON, NIGHT = datetime.datetime(2026, 1, 5, 12, 0), datetime.datetime(2026, 1, 5, 23, 30)


def at(monkeypatch: pytest.MonkeyPatch, moments: Iterator[datetime.datetime]) -> None:
    """Lets the limits see these moments, one at each look at the clock."""
    clock = SimpleNamespace(now=lambda: next(moments))
    monkeypatch.setattr(limit_checks, "datetime", SimpleNamespace(datetime=clock, time=datetime.time))


def settings(**limits: Any) -> NodeSettings:
    return NodeSettings.model_validate({"name": "ada", "data": ["a", "b"], "limits": limits})


def four(tiny_recipe: Callable[..., Recipe], **limits: Any) -> Recipe:
    """A federation of four in which the first node has limits, so that three remain without it."""
    recipe = tiny_recipe()
    fourth = recipe.nodes[0].model_copy(update={"name": "dee"})
    first = NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "limits": limits})
    return recipe.model_copy(update={"nodes": [first, *recipe.nodes[1:], fourth], "num_nodes": 4})


def test_no_limits_change_nothing(tiny_recipe: Callable[..., Recipe]) -> None:
    assert within_limits(settings(), tiny_recipe()) == settings()
    check_memory(settings(), tiny_recipe(), 320)
    check_round(settings(), ["trunk", "layers.0.experts.1"])
    check_hours(settings())


def test_experts(tiny_recipe: Callable[..., Recipe]) -> None:
    within_limits(settings(experts=8), tiny_recipe())  # two layers of four experts, three times, over three nodes
    with pytest.raises(OverLimitsError, match=r"8 experts on each.*grants 7"):
        within_limits(settings(experts=7), tiny_recipe())
    check_round(settings(experts=1), ["trunk", "layers.0.experts.1"])
    with pytest.raises(OverLimitsError, match="abstains: 2 experts"):
        check_round(settings(experts=1), ["trunk", "layers.0.experts.1", "layers.1.experts.0"])


def test_memory_names_both_sizes(tiny_recipe: Callable[..., Recipe]) -> None:
    model = {"layers": 2, "width": 256, "heads": 4, "experts": 16, "top_k": 2, "expert_width": 512, "context": 32}
    recipe = tiny_recipe(model=model)
    parameters = 2 * (16 * 3 * 256 * 512)  # the experts; the trunk is small beside them
    with pytest.raises(OverLimitsError, match="grants 64 MB") as caught:
        check_memory(settings(memory_mb=64), recipe, 320)
    told = int(str(caught.value).split("at least ")[1].split()[0])
    assert parameters * 24 / 2**20 < told < 1.1 * parameters * 24 / 2**20
    check_memory(settings(memory_mb=2 * told), recipe, 320)


@pytest.mark.parametrize(("key", "code"), [("memory_mb", "limits-memory"), ("disk_mb", "limits-disk")])
def test_what_counts_is_what_the_request_puts_on_the_node(
    tiny_recipe: Callable[..., Recipe], key: str, code: str
) -> None:
    """By the recipe a node holds next to nothing; the request names every expert."""
    model = {"layers": 2, "width": 256, "heads": 4, "experts": 16, "top_k": 2, "expert_width": 512, "context": 32}
    recipe = tiny_recipe(model=model, experts={"unheld": "absent"})
    limits = {**recipe.nodes[0].limits.model_dump(), key: 200}
    node = NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "limits": limits})
    sent = recipe.for_nodes().model_copy(update={"num_nodes": 100_000}).model_dump(mode="json")
    worker = Worker(node, sent)
    assert worker.describe("run").refusal is None
    names = BlockLayout.of(parameter_shapes(recipe.model, 320)).names
    few = [name for name in names if not name.endswith(("3", "4", "5", "6", "7", "8", "9"))]
    for steps in (0, 4):
        fields = {"run_id": "run", "round": 1, "epoch": 1, "base_digest": "0" * 64, "recipe": sent, "index": ""}
        request = TrainRequest.model_validate({**fields, "steps": steps, "held": names})
        with pytest.raises(OverLimitsError) as caught:
            worker.work(request, Parcel("", ()))
        assert caught.value.refusal.code == code
        with pytest.raises(WireError):  # within the limits; what fails is the empty parcel
            worker.work(request.model_copy(update={"held": few}), Parcel("", ()))


@pytest.mark.parametrize(
    ("hours", "noon", "night"),
    [
        ("08:00-18:00", True, False),
        ("20:00-06:00", False, True),
        ("12:00-12:01", True, False),
        ("00:00-12:00", False, False),
    ],
)
def test_hours_may_pass_midnight(hours: str, noon: bool, night: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for now, allowed in ((NOON, noon), (NIGHT, night)):
        at(monkeypatch, itertools.repeat(now))
        if allowed:
            check_hours(settings(hours=hours))
        else:
            with pytest.raises(OverLimitsError, match="abstains: the owner of this node grants "):
                check_hours(settings(hours=hours))


def test_data_sets_are_granted_by_run(tiny_recipe: Callable[..., Recipe]) -> None:
    assert within_limits(settings(data_sets={"tiny": ["b"]}), tiny_recipe()).data == ["b"]
    with pytest.raises(OverLimitsError, match="grants no data to a run called tiny"):
        within_limits(settings(data_sets={"other": ["b"]}), tiny_recipe())


SMALL = {"min_steps": 1, "min_batch": 1, "min_tokens": 1}


@pytest.mark.parametrize(
    ("recipe", "limits", "code"),
    [
        ({"local_steps": 1, "batch_size": 8}, {}, "limits-steps"),
        ({"local_steps": 8, "batch_size": 1}, {}, "limits-batch"),
        ({"local_steps": 2, "batch_size": 2}, {}, "limits-tokens"),
        ({"local_steps": 2, "batch_size": 8}, {}, None),
        ({"local_steps": 8, "batch_size": 1, "accumulation": 2}, {}, None),
        ({"local_steps": 1, "batch_size": 1}, SMALL, None),
        ({"local_steps": 9, "batch_size": 8}, {"min_steps": 10}, "limits-steps"),
        ({"local_steps": 9, "batch_size": 8}, {"min_batch": 9}, "limits-batch"),
        ({"local_steps": 9, "batch_size": 8}, {"min_tokens": 9 * 8 * 32 + 1}, "limits-tokens"),
        ({"local_steps": 9, "batch_size": 8}, {"min_tokens": 9 * 8 * 32}, None),
    ],
)
def test_small_rounds(
    tiny_recipe: Callable[..., Recipe], recipe: dict[str, int], limits: dict[str, int], code: str | None
) -> None:
    steps = recipe["local_steps"]
    made = tiny_recipe(training={key: value for key, value in recipe.items() if key != "local_steps"})
    check_size(settings(**limits), made, 0, 1)  # an evaluation trains nothing
    if code is None:
        check_size(settings(**limits), made, steps, 1)
        return
    with pytest.raises(OverLimitsError) as caught:
        check_size(settings(**limits), made, steps, 1)
    told = caught.value.refusal
    assert told.code == code
    assert (told.asked, told.granted) == tuple(int(n) for n in re.findall(r"\d+", sentence(told).split(" (limits")[0]))
    if code == "limits-batch":
        check_size(settings(**limits), made, steps, 2)  # two devices train twice as many sequences


def test_figures_beyond_what_can_be_told_are_cut() -> None:
    refusal = OverLimitsError("limits-tokens", "too few", 10**30, 10**31).refusal
    assert (refusal.asked, refusal.granted) == (10**15, 10**15)


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=str)
def test_the_shipped_recipes_are_within_an_owners_defaults(path: Path) -> None:
    recipe = load_recipe(path)
    check_size(settings(), recipe, recipe.rounds.local_steps, 1)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"experts": 2}, "limits.experts"),
        ({"data_sets": {}}, "limits.data_sets"),
        ({"memory_mb": 64}, None),
        ({"min_steps": 5}, "limits.min_steps"),
        ({"min_batch": 5}, "limits.min_batch"),
        ({"min_tokens": 513}, "limits.min_tokens"),
        ({"disk_mb": 1}, "limits.disk_mb"),
        ({"disk_mb": 64, "network": False}, None),
    ],
)
def test_a_refusal_stands_in_both_logs_and_the_run_goes_on(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture, limits: dict[str, Any], words: str | None
) -> None:
    _, events = run_recipe(four(tiny_recipe, **limits))
    refused = of_kind(events, "node_refused")
    if words is None:  # the tiny model fits
        assert refused == []
    else:
        assert {event["node"] for event in refused} == {"ada"}
        assert words in refused[0]["reason"]
        assert words in caplog.text
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def away(now: datetime.datetime) -> str:
    """Hours that have not come yet."""
    start, end = (now + datetime.timedelta(hours=hours) for hours in (6, 7))
    return f"{start:%H:%M}-{end:%H:%M}"


def test_nothing_is_done_for_a_run_outside_the_hours(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    hours = away(datetime.datetime.now())
    recipe = four(tiny_recipe, hours=hours)
    recipe = recipe.model_copy(
        update={"nodes": [recipe.nodes[0].model_copy(update={"cache_dir": str(tmp_path / "own")}), *recipe.nodes[1:]]}
    )
    _, events = run_recipe(recipe)
    refused = of_kind(events, "node_refused")
    assert {event["node"] for event in refused} == {"ada"}
    assert "abstains" in refused[0]["reason"] and "limits.hours" in refused[0]["reason"]
    assert hours not in json.dumps(events)
    assert f"grants {hours}" in caplog.text
    assert not (tmp_path / "own").exists(), "no text was prepared"
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def after(looks: int) -> Iterator[datetime.datetime]:
    """Noon for a number of looks at the clock, then night."""
    return itertools.chain(itertools.repeat(NOON, looks), itertools.repeat(NIGHT))


def test_work_ends_with_the_hours(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is tried as the last one in the hours: the refusal comes at the next, whatever runs."""
    recipe = tiny_recipe(rounds={"local_steps": 4})
    limits = {**recipe.nodes[0].limits.model_dump(), "hours": "08:00-18:00"}
    node = NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "limits": limits})
    sent = recipe.for_nodes().model_dump(mode="json")
    request, parcel = Coordinator(recipe).request(1, steps=4)
    at(monkeypatch, after(0))
    with pytest.raises(OverLimitsError) as caught:
        Worker(node, sent).describe("run")
    assert caught.value.refusal.code == "limits-hours", "in the preparation"
    assert not list(cache_folder(node).glob("corpora/*/corpus.json"))
    at(monkeypatch, itertools.repeat(NOON))
    Worker(node, sent).describe("run")
    ended = set()
    for looks in range(100):
        at(monkeypatch, after(looks))
        try:
            Worker(node, sent).work(request, parcel)
            break
        except OverLimitsError as error:
            assert error.refusal.code == "limits-hours"
            ended |= {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    assert {"evaluate", "train_round"} <= ended
    assert looks > 4, "between all steps"
    assert [path.name for path in state_folder(node, "run").glob("round-*")] == ["round-000001.safetensors"]


def test_several_ranks_end_with_the_hours(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe()
    node = recipe.nodes[0].model_copy(update={"devices": 2})
    node.limits.__dict__["hours"] = away(datetime.datetime.now())
    monkeypatch.setattr(
        training,
        "launch",
        lambda module, arguments, device, size, scratch: rank.work(ALONE, device, arguments),
    )
    request = Coordinator(recipe).request(1)[0]
    worker = Worker(node, recipe.for_nodes().model_dump(mode="json"))
    model = worker.model(worker.tokenizer(), request)
    folder = state_folder(node, "run")
    with pytest.raises(RefusedError, match="abstains") as caught:
        training.train_round_in_ranks(model, node, worker.recipe, request, folder, worker.device, 2)
    assert caught.value.refusal.code == "limits-hours"


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
def test_a_round_outside_the_hours_is_sat_out_and_a_ping_answered(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, kind: str
) -> None:
    recipe = four(tiny_recipe, hours=away(datetime.datetime.now()))
    grid = grid_of(RunFolder.create(tmp_path / "runs", recipe))
    request = TrainRequest(run_id="run", round=1, epoch=1, base_digest="0" * 64, steps=0, held=[], recipe={}, index="")
    (reply,) = grid.send_and_receive([Message(pack(request), dst_node_id=1, message_type=kind)])
    refusal = read_header(reply, TrainReply).error
    assert refusal is not None and refusal.code == "limits-hours"
    (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=1, message_type=f"query.{PING}")])
    assert not reply.has_error() and not reply.content


def test_a_coordinator_cannot_ask_for_less_in_a_round_than_it_said(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The recipe that is agreed on has 25 steps; the round that is asked for has one."""
    recipe = tiny_recipe(rounds={"local_steps": 25})
    node = NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "limits": {}})
    worker = Worker(node, recipe.for_nodes().model_dump(mode="json"))
    assert worker.describe("run").refusal is None
    request = TrainRequest(run_id="run", round=1, epoch=1, base_digest="0" * 64, steps=1, held=[], recipe={}, index="")
    with pytest.raises(OverLimitsError, match="1 local steps"):
        worker.work(request, Parcel("", ()))


def test_without_the_network_nothing_of_the_hub_is_asked_for(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: asked.append(arguments))
    recipe = four(tiny_recipe, network=False)
    data = {"source": "fineweb", "repo": "some/thing", "max_documents": 5}
    for node, sent in (
        (recipe.nodes[0], recipe.model_copy(update={"data": recipe.data.model_copy(update={"tokenizer": "some/one"})})),
        (NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "data": [data]}), recipe),
    ):
        with pytest.raises(RefusedError) as caught:
            Worker(node, sent.for_nodes().model_dump(mode="json")).describe("run")
        assert caught.value.refusal.code == "limits-network"
    assert asked == []


def test_a_recipe_starts_no_more_threads_and_processes_than_there_are_processors(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    recipe = tiny_recipe(data={"processes": 1024, "loader_threads": 64}, training={"threads": 1024})
    worker = Worker(recipe.nodes[0], recipe.model_dump(mode="json"))
    cores = len(os.sched_getaffinity(0))
    assert worker.recipe.data.processes == cores
    assert worker.recipe.data.loader_threads <= cores
    assert worker.recipe.training.threads <= cores


def test_a_split_that_leaves_a_few_pieces_to_train_on_is_refused(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(data={"held_out": 0.99, "piece_bytes": 64})
    node = NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "limits": {}})
    with pytest.raises(OverLimitsError, match=r"leaves \d+ tokens to train on") as caught:
        Worker(node, recipe.for_nodes().model_dump(mode="json")).describe("run")
    told = caught.value.refusal
    assert told.code == "limits-text" and told.asked is not None and 0 < told.asked < 512 == told.granted


def test_a_recipe_starts_no_more_ranks_than_there_are_processors(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(training={"devices": 1024, "device": "cpu"})
    node, sent = recipe.nodes[0], recipe.model_dump(mode="json")
    with pytest.raises(RefusedError, match="1024, but this machine has") as caught:
        Worker(node, sent)
    assert caught.value.refusal.code == "device"
    assert Worker(node.model_copy(update={"devices": 1024}), sent).devices == 1024, "the owner wants it so"


def test_no_loss_of_single_sentences_is_told() -> None:
    check_evaluation(settings(), 256, 100_000)
    check_evaluation(settings(), 64, 2_000)
    with pytest.raises(OverLimitsError, match="over 64 held-out tokens") as caught:
        check_evaluation(settings(), 64, 100_000)
    assert "raise data.evaluation_tokens" in sentence(caught.value.refusal)


def test_an_evaluation_of_few_tokens_is_refused(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = four(tiny_recipe, min_steps=1, min_batch=1, min_tokens=1, min_evaluation_tokens=600)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"evaluation_tokens": 64})})
    events = run_recipe(recipe)[1]
    told = [event for event in of_kind(events, "node_reply") if event["node"] == "ada"]
    assert told
    assert all("at least 600 (limits.min_evaluation_tokens)" in event["reason"] for event in told)
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
