"""Runs in which a part of the model is never trained: it travels once, and votes, checkpoints and resumes know it."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType

from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.models import initial_model, load_model
from server.run_folder.recorder import last_checkpoint
from server.run_folder.verify import verify_run
from strategies.exchange.messages import TrainReply, TrainRequest, read_header
from tests.federation import grid_of, of_kind, run_recipe
from tests.server.test_app import InProcessGrid
from tests.strategies.test_tri_redundant import KilledError, die_at, with_drill
from trfmoe_core.blocks import TRUNK
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import RunFolderError

MODEL = {"layers": 2, "width": 32, "heads": 2, "experts": 4, "top_k": 2, "expert_width": 32, "context": 32}
LOW_RANK = MODEL | {"expert": "low_rank", "rank": 4}
TRAINING = {"threads": 1, "batch_size": 4, "warmup_steps": 2, "learning_rate": 0.02}
DIFFERENCES = {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"}

Make = Callable[..., Recipe]


def frozen_recipe(make: Make, freeze: str = "base", **changes: Any) -> Recipe:
    return make(**{"model": LOW_RANK, "training": TRAINING | {"freeze": freeze}, **changes})


class Wire:
    """What travels in a run: of every message its node, its round, the tensors in it, and those of the frozen part."""

    def __init__(self) -> None:
        self.down: list[tuple[int, int, set[str], set[str]]] = []
        self.up: list[tuple[int, int, set[str]]] = []

    def watch(self, grid: InProcessGrid) -> InProcessGrid:
        push = grid.push_messages

        def watched(messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            for message in messages:
                if message.metadata.message_type != MessageType.QUERY:
                    request = read_header(message, TrainRequest)
                    assert ("frozen" in message.content) == (request.frozen_index is not None)
                    came = tensors_of(request.frozen_index) if request.frozen_index else set()
                    self.down.append((message.metadata.dst_node_id, request.round, tensors_of(request.index), came))
            return push(messages)

        grid.push_messages = watched  # type: ignore[method-assign]
        grid._tamper = self._answered
        return grid

    def _answered(self, node_id: int, message: Message) -> Message:
        if not message.has_error() and message.metadata.message_type == MessageType.TRAIN:
            assert set(message.content) <= {"header", "parcel"}
            reply = read_header(message, TrainReply)
            self.up.append((node_id, reply.round, tensors_of(reply.index) if reply.index else set()))
        return message


def tensors_of(index: str) -> set[str]:
    return {name for entry in json.loads(index)["entries"] for name, _ in entry["tensors"]}


def watched_run(recipe: Recipe) -> tuple[RunFolder, list[dict[str, Any]], Wire]:
    folder, wire = RunFolder.create(Path(recipe.run_root), recipe), Wire()
    run(wire.watch(grid_of(folder)), folder)
    return folder, read_events(folder.events_path), wire


@pytest.mark.parametrize(
    ("freeze", "changes"),
    [
        ("none", {}),
        ("base", {"transport": DIFFERENCES}),
        ("trunk", {"experts": {"unheld": "freeze"}}),
        ("trunk", {"model": MODEL, "transport": DIFFERENCES}),
        ("base", {"experts": {"unheld": "absent"}, "training": TRAINING | {"freeze": "base", "optimizer": "muon"}}),
    ],
)
def test_what_is_never_trained_travels_once_and_nothing_of_it_comes_back(
    tiny_recipe: Make, freeze: str, changes: dict[str, Any]
) -> None:
    folder, events, wire = watched_run(frozen_recipe(tiny_recipe, freeze, **changes))
    model = initial_model(folder, load_tokenizer("byte"))
    frozen, trained = set(model.frozen_weights()), {name for name, _ in model.named_parameters()}
    assert frozen and trained and not frozen & trained
    assert [(node, number, came) for node, number, _, came in wire.down if came] == [(n, 1, frozen) for n in (1, 2, 3)]
    assert all(tensors == trained for _, _, tensors, _ in wire.down)
    assert len(wire.up) == 9
    assert all(tensors == trained for _, _, tensors in wire.up)
    started, committed = of_kind(events, "run_started")[0], of_kind(events, "round_committed")
    assert started["frozen_parameters"] == sum(weights.numel() for weights in model.frozen_weights().values())
    assert started["parameters"] == sum(weights.numel() for weights in model.named_weights().values())
    assert committed[0]["bytes_down"] - committed[2]["bytes_down"] >= 3 * 4 * started["frozen_parameters"]
    bits = [event["bits_per_byte"] for event in of_kind(events, "evaluated")]
    assert bits[-1] < bits[0]
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None and set(checkpoint.weights) == trained
    voted = {entry["block"] for event in of_kind(events, "verdicts") for entry in event["verdicts"]}
    assert (TRUNK in voted) == (freeze != "trunk")
    loaded, _ = load_model(folder, 3)
    for name, weights in loaded.frozen_weights().items():
        assert torch.equal(weights, model.frozen_weights()[name])
    assert verify_run(folder).problems == []


@pytest.mark.parametrize("freeze", ["base", "trunk"])
@pytest.mark.parametrize("moment", [2, 5])
def test_a_run_that_dies_goes_on_bit_for_bit_and_sends_it_no_second_time(
    tiny_recipe: Make, freeze: str, moment: int
) -> None:
    recipe = frozen_recipe(tiny_recipe, freeze)
    whole = of_kind(run_recipe(recipe)[1], "run_finished")[0]["digest"]
    folder, wire = RunFolder.create(Path(recipe.run_root), recipe), Wire()
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(moment)), folder)
    run(wire.watch(grid_of(folder)), folder)
    assert of_kind(read_events(folder.events_path), "run_finished")[0]["digest"] == whole
    had = {1, 2, 3} if moment > 3 else {1, 2}
    assert {node for node, _, _, came in wire.down if came} == {1, 2, 3} - had


def test_a_node_that_joins_late_or_lost_its_disk_gets_it_then(tiny_recipe: Make, tmp_path: Path) -> None:
    rounds = {"num_rounds": 5, "local_steps": 2, "nodes_deadline_s": 0.5, "reply_deadline_s": 60.0}
    recipe = frozen_recipe(tiny_recipe, rounds=rounds)
    dan = recipe.nodes[0].model_copy(update={"name": "dan"})
    recipe = Recipe.model_validate(recipe.model_dump(mode="json") | {"nodes": [*recipe.nodes, dan], "num_nodes": 4})
    folder, wire = RunFolder.create(Path(recipe.run_root), recipe), Wire()
    grid = wire.watch(grid_of(folder))

    def there() -> list[int]:
        return [1, 2, 3] if not any(number == 2 for _, number, *_ in wire.down) else [1, 2, 3, 4]

    def lose(node_id: int, message: Message) -> Message:
        if node_id == 2 and message.metadata.message_type == MessageType.TRAIN and wire.down[-1][1] == 3:
            for state in (tmp_path / "state").rglob("bob"):
                shutil.rmtree(state)
        return wire._answered(node_id, message)

    grid.get_node_ids, grid._tamper = there, lose  # type: ignore[method-assign]
    run(grid, folder)
    events = read_events(folder.events_path)
    arrived = [(node, number) for node, number, _, came in wire.down if came]
    assert arrived[:3] == [(1, 1), (2, 1), (3, 1)]
    assert [node for node, _ in arrived[3:]] == [4, 2]
    dropped = [event for event in of_kind(events, "node_reply") if event["status"] == "dropped"]
    assert [(event["node"], event["round"]) for event in dropped] == [("bob", 4)]
    assert "lacks the weights that are never trained; it gets them with its next request" in dropped[0]["reason"]
    last = {event["node"] for event in of_kind(events, "node_reply") if event["round"] == 5}
    assert last == {"ada", "bob", "cyd", "dan"}


def test_another_frozen_part_than_announced_is_refused_by_the_node(
    tiny_recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = frozen_recipe(tiny_recipe)
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    grid = grid_of(folder)
    push = grid.push_messages

    def altered(messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            if message.metadata.dst_node_id == 3 and "frozen" in message.content:
                request = read_header(message, TrainRequest).model_copy(update={"frozen": "0" * 64})
                message.content["header"] = ConfigRecord({"json": request.model_dump_json()})
                assert isinstance(message.content["frozen"], ArrayRecord)
        return push(messages)

    grid.push_messages = altered  # type: ignore[method-assign]
    run(grid, folder)
    assert "and the coordinator announced 000000000000" in caplog.text
    dropped = [
        event for event in of_kind(read_events(folder.events_path), "node_reply") if event["status"] != "accepted"
    ]
    assert dropped[0]["node"] == "cyd" and dropped[0]["round"] == 1


def test_a_damaged_file_on_a_node_is_sent_again(tiny_recipe: Make, tmp_path: Path) -> None:
    recipe = frozen_recipe(tiny_recipe)
    folder, wire = RunFolder.create(Path(recipe.run_root), recipe), Wire()
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(5)), folder)
    (path,) = (tmp_path / "state").rglob("cyd/frozen/*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run(wire.watch(grid_of(folder)), folder)
    assert [node for node, _, _, came in wire.down if came] == [3]
    assert of_kind(read_events(folder.events_path), "run_finished")[0]["outcome"] == "completed"


def test_a_run_does_not_go_on_with_another_frozen_part(tiny_recipe: Make) -> None:
    recipe = frozen_recipe(tiny_recipe)
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    with pytest.raises(KilledError):
        run(grid_of(folder, die_at(5)), folder)
    folder.write_recipe(recipe.model_copy(update={"seed": recipe.seed + 1}))
    folder = RunFolder.open(folder.path)
    with pytest.raises(RunFolderError, match="the weights that are never trained are not those that this run began"):
        run(grid_of(folder), folder)
    assert any("weights that are never trained" in problem for problem in verify_run(folder).problems)
    with pytest.raises(RunFolderError, match="never trained"):
        load_model(folder, 1)


@pytest.mark.parametrize("freeze", ["base", "trunk"])
@pytest.mark.parametrize("vote", ["majority", "median"])
def test_a_liar_is_outvoted_on_low_rank_experts(tiny_recipe: Make, freeze: str, vote: str) -> None:
    recipe = with_drill(frozen_recipe(tiny_recipe, freeze, vote=vote), {"factor": -10.0, "from_round": 2})
    _, events = run_recipe(recipe)
    committed = of_kind(events, "round_committed")
    blocks = 2 * 4 + (freeze == "base")
    assert committed[0]["outvoted"] == {}
    assert all(event["outvoted"] == {"cyd": blocks} for event in committed[1:])
