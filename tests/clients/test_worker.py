"""A node's round: asked again it answers the same without training, and moments follow the experts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clients import worker as worker_module
from clients.kept.states import earlier_state, give_up, state_path
from clients.settings import state_folder
from clients.worker import Worker
from strategies.exchange.messages import TrainReply, TrainRequest
from trfmoe_core.blocks import BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.local_state import load_state, save_state
from trfmoe_core.wire import Parcel, decode, encode


class Coordinator:
    """Asks one node for rounds, and puts its updates into the model."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        tokenizer = load_tokenizer("byte")
        parameters = dict(build_model(recipe.model, tokenizer.padded_vocab_size, recipe.seed).named_parameters())
        self.layout = BlockLayout.of(parameters)
        self.blocks: Blocks = self.layout.gather(parameters)

    def request(self, number: int, **changes: Any) -> tuple[TrainRequest, Parcel]:
        parcel = encode(self.blocks, self.layout, "float32", 1 << 26)
        fields = {
            "run_id": "run",
            "round": number,
            "epoch": 1,
            "base_digest": blocks_digest(self.blocks),
            "steps": 3,
            "held": self.layout.names,
            "recipe": self.recipe.for_nodes().model_dump(mode="json"),
        }
        return TrainRequest.model_validate({**fields, "index": parcel.index, **changes}), parcel

    def ask(self, settings: NodeSettings, number: int, **changes: Any) -> tuple[TrainReply, Blocks]:
        request, parcel = self.request(number, **changes)
        reply, answer = Worker(settings, request.recipe).work(request, parcel)
        assert answer is not None
        return reply, decode(answer, self.layout, request.held, ["float32"])  # type: ignore[return-value]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds that were trained."""
    numbers: list[int] = []
    real = worker_module.train_round

    def counted(*arguments: Any) -> Any:
        numbers.append(arguments[4].round)
        return real(*arguments)

    monkeypatch.setattr(worker_module, "train_round", counted)
    return numbers


def same(first: Blocks, second: Blocks) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_asked_again_for_the_same_a_node_answers_the_same_without_training(
    tiny_recipe: Callable[..., Recipe], trainings: list[int]
) -> None:
    recipe = tiny_recipe()
    coordinator, node = Coordinator(recipe), recipe.nodes[0]
    first, updates = coordinator.ask(node, 1)
    again, same_updates = coordinator.ask(node, 1)
    assert trainings == [1] and same(updates, same_updates)
    assert again.model_copy(update={"spent": first.spent}) == first
    fewer = coordinator.layout.names[1:]
    for changes in ({"epoch": 2}, {"held": fewer}, {"steps": 2}, {"run_id": "other"}):
        trainings.clear()
        coordinator.ask(node, 1, **changes)
        assert trainings == [1], changes
    coordinator.blocks["trunk"] += 1e-3
    trainings.clear()
    coordinator.ask(node, 1)
    assert trainings == [1], "other weights"


def test_a_damaged_reply_costs_no_more_than_the_training(
    tiny_recipe: Callable[..., Recipe], trainings: list[int]
) -> None:
    recipe = tiny_recipe()
    coordinator, node = Coordinator(recipe), recipe.nodes[0]
    _, updates = coordinator.ask(node, 1)
    path = state_folder(node, "run") / "reply.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    _, again = coordinator.ask(node, 1)
    assert trainings == [1, 1] and same(updates, again)


@pytest.mark.parametrize("content", [b"", b"\xff" * 300, None])
def test_a_damaged_state_is_set_aside_and_the_moments_begin_at_zero(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    recipe = tiny_recipe()
    coordinator, node = Coordinator(recipe), recipe.nodes[0]
    coordinator.ask(node, 1)
    path = state_path(state_folder(node, "run"), 1)
    if content is None:
        save_state(path, {}, {"some": "other file"})
    else:
        path.write_bytes(content)
    _, updates = coordinator.ask(node, 2)
    aside = path.with_name(path.name + ".damaged")
    assert aside.exists() and not path.exists()
    assert caplog.text.count("set aside as round-000001.safetensors.damaged") == 1
    fresh = node.model_copy(update={"state_dir": f"{node.state_dir}-fresh"})
    assert same(updates, coordinator.ask(fresh, 2)[1])
    coordinator.ask(node, 3)
    state_path(aside.parent, 3).write_bytes(b"damaged")
    before = load_state(state_path(aside.parent, 2))[0]
    assert earlier_state(aside.parent, 4, coordinator.layout.names)[0].keys() == before.keys(), "the one before it"
    give_up(aside.parent)
    assert not aside.exists()


def test_moments_of_experts_that_moved_begin_anew_and_the_others_go_on(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    coordinator, node = Coordinator(recipe), recipe.nodes[0]
    names = coordinator.layout.names
    gone, come = names[0], names[1]
    coordinator.ask(node, 1, held=[name for name in names if name != come])
    coordinator.ask(node, 2, held=[name for name in names if name != gone])
    folder = state_folder(node, "run")
    counts = {
        number: {
            key.removeprefix("updates."): int(value)
            for key, value in load_state(state_path(folder, number))[0].items()
            if key.startswith("updates.")
        }
        for number in (1, 2)
    }
    moved = {gone, come}
    # An expert rests in a step in which no token reached it, so counts are at most the steps.
    assert counts[1]["trunk"] == 3 and counts[2]["trunk"] == 6
    assert all(counts[2][name] <= 3 for name in moved & counts[2].keys())
    assert any(counts[2][name] > 3 for name in counts[2].keys() - moved - {"trunk"})
    kept, place = earlier_state(folder, 3, [name for name in names if name != gone])
    assert f"updates.{come}" in kept and place is not None and place["stream"]["cursors"] != [{"epoch": 0, "row": 0}]
    assert f"updates.{come}" not in earlier_state(folder, 3, names[2:])[0]


def test_state_of_the_last_two_rounds_stays_and_of_rounds_taken_back_goes(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    coordinator, node = Coordinator(recipe), recipe.nodes[0]
    for number in (1, 2, 3):
        coordinator.ask(node, number)
    folder = state_folder(node, "run")

    def rounds() -> list[str]:
        return sorted(path.stem for path in folder.glob("round-*"))

    assert rounds() == ["round-000002", "round-000003"]
    assert load_state(state_path(folder, 3))[1]["base_digest"] == blocks_digest(coordinator.blocks)
    coordinator.blocks["trunk"] += 1e-3
    coordinator.ask(node, 2)
    assert rounds() == ["round-000002"]


def test_a_real_node_trains_in_an_order_of_its_own_and_resumes_in_it(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    coordinator = Coordinator(recipe)
    simulated = recipe.nodes[0]
    real = [simulated.model_copy(update={"salt": None, "state_dir": str(tmp_path / place)}) for place in "ab"]
    first = [coordinator.ask(node, 1)[1] for node in (*real, simulated)]
    assert not same(first[0], first[1]) and not same(first[0], first[2])
    second = coordinator.ask(real[0], 2)[1]
    folder = state_folder(real[0], "run")
    assert (folder / "salt.txt").stat().st_mode & 0o777 == 0o600
    for kept in (folder / "reply.safetensors", state_path(folder, 2)):
        kept.unlink()
    assert same(second, coordinator.ask(real[0], 2)[1]), "asked again after a crash"
    known = real[1].model_copy(update={"salt": (folder / "salt.txt").read_text()})
    give_up(state_folder(known, "run"))
    assert same(first[0], coordinator.ask(known, 1)[1])


def test_a_run_that_began_without_a_salt_goes_on_without_one(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    coordinator, node = Coordinator(recipe), recipe.nodes[0]
    coordinator.ask(node, 1)
    expected = coordinator.ask(node, 2)[1]
    folder = state_folder(node, "run")
    for kept in (folder / "reply.safetensors", state_path(folder, 2)):
        kept.unlink()
    assert same(expected, coordinator.ask(node.model_copy(update={"salt": None}), 2)[1])
    assert (folder / "salt.txt").read_text() == ""


@pytest.mark.slow
def test_a_node_with_two_devices_trains_like_one_with_the_doubled_batch(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    training = {"batch_size": 4, "warmup_steps": 2, "learning_rate": 0.003, "min_learning_rate": 0.0003}
    two, one = tiny_recipe(training={**training, "batch_size": 2}), tiny_recipe(training=training)
    pair = two.nodes[0].model_copy(update={"devices": 2, "state_dir": str(tmp_path / "pair")})
    for number in (1, 2):
        reply, updates = Coordinator(two).ask(pair, number)
        expected, single = Coordinator(one).ask(one.nodes[0], number)
        assert reply.training is not None and expected.training is not None
        assert reply.training.tokens == expected.training.tokens
        assert reply.training.loss == pytest.approx(expected.training.loss, abs=1e-5)
        assert reply.training.expert_share == expected.training.expert_share
        for name, update in single.items():
            torch.testing.assert_close(updates[name], update, rtol=1e-3, atol=2e-5)
