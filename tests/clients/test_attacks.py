"""What each attack sends, and that each fault does to a round what it is there for."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flwr.app import MessageType

from clients import attacks
from clients.conspiracy import RULES, Conspiracy
from clients.parcels import parcel_blocks
from server.app import run
from server.events import read_events
from server.run_folder import RunFolder
from strategies.messages import TrainReply, read_header, read_parcel
from strategies.voting import norm
from tests.federation import grid_of, of_kind, run_recipe
from trfmoe_core.config import DrillConfig, Recipe

GENERATOR = torch.Generator().manual_seed(5)
UPDATE = torch.randn(1000, generator=GENERATOR)
COMMON = torch.randn(1000, generator=GENERATOR)
HONEST = [COMMON + 0.5 * torch.randn(1000, generator=GENERATOR) for _ in range(3)]
LIAR = "cyd"


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_attacks_on_the_own_update() -> None:
    assert torch.equal(attacks.sign_flip(UPDATE), -UPDATE)
    assert torch.equal(attacks.scale(UPDATE, 100.0), UPDATE * 100)
    assert not attacks.zero(UPDATE).any()
    assert attacks.nan(UPDATE).isnan().all()
    assert attacks.inf(UPDATE).isinf().sum() == 1
    noise = attacks.gaussian(UPDATE, -10.0, torch.Generator().manual_seed(1))
    assert norm(noise) == pytest.approx(10 * norm(UPDATE), rel=1e-4)
    assert abs(cosine(noise, UPDATE)) < 0.1
    assert torch.equal(noise, attacks.gaussian(UPDATE, 10.0, torch.Generator().manual_seed(1)))


def test_attacks_that_know_the_honest_updates() -> None:
    mean = torch.stack(HONEST).mean(dim=0)
    whole = (sum(HONEST) + attacks.inner_product(HONEST, 4.0)) / 4  # type: ignore[operator]
    assert cosine(whole, mean) == pytest.approx(-1.0, abs=1e-4)
    lie = attacks.little_enough(HONEST)
    assert float(((lie - mean).abs() / torch.stack(HONEST).std(dim=0)).max()) == pytest.approx(1.5, rel=1e-3)
    close = attacks.stays_close(HONEST)
    apart = [float((HONEST[i] - HONEST[j]).norm()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float((close - HONEST[0]).norm()) == pytest.approx(0.9 * sum(apart) / 3, rel=1e-3)
    assert float(close @ mean) < float(HONEST[0] @ mean)


@pytest.mark.parametrize("name", RULES)
def test_attacks_bear_one_honest_replica_and_none_that_moved(name: str) -> None:
    assert bool(torch.isfinite(RULES[name]([UPDATE])).all())
    assert bool(torch.isfinite(RULES[name]([torch.zeros(10), torch.zeros(10)])).all())


def with_drill(recipe: Recipe, **drill: Any) -> Recipe:
    nodes = [
        node.model_copy(update={"drill": DrillConfig(**drill)}) if node.name == LIAR else node for node in recipe.nodes
    ]
    return recipe.model_copy(update={"nodes": nodes})


def replies_of(events: list[dict[str, Any]], name: str = LIAR) -> list[dict[str, Any]]:
    told = [event for event in of_kind(events, "node_reply") if event["node"] == name]
    return [event for event in told if event["status"] != "late" and event.get("phase") != "evaluate"]


SHORT = {"num_rounds": 2, "local_steps": 2, "nodes_deadline_s": 5.0, "reply_deadline_s": 60.0}
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"attack": "inf"}, "dropped", "finite"),
    ({"attack": "gaussian", "factor": 1.0}, "accepted", ""),
    ({"attack": "label_flip"}, "accepted", ""),
    ({"attack": "token_lie", "factor": 100.0}, "accepted", ""),
    ({"attack": "bit_flip"}, "dropped", "digest"),
    ({"attack": "garbage"}, "dropped", ""),
    ({"attack": "crash"}, "missing", "crashes in round"),
    ({"attack": "crash_during"}, "missing", "while it trains"),
    ({"attack": "crash_after"}, "missing", "after it trained"),
    ({"attack": "slow", "delay_s": 0.0}, "accepted", ""),
]


@pytest.mark.parametrize(("drill", "status", "reason"), FAULTS, ids=lambda value: str(value)[:30])
def test_a_run_bears_the_fault_and_names_it(
    tiny_recipe: Callable[..., Recipe], drill: dict[str, Any], status: str, reason: str
) -> None:
    _, events = run_recipe(with_drill(tiny_recipe(rounds=SHORT), **drill))
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    told = replies_of(events)
    assert [event["status"] for event in told] == [status, status]
    assert all(reason in (event["reason"] or "") for event in told)
    assert status != "accepted" or all(event["drill"].startswith(drill["attack"]) for event in told)
    assert all(event["status"] == "accepted" for event in replies_of(events, "ada"))


def test_garbage_is_of_many_kinds_and_none_is_taken(tiny_recipe: Callable[..., Recipe]) -> None:
    rounds = {**SHORT, "num_rounds": 8, "local_steps": 1}
    _, events = run_recipe(with_drill(tiny_recipe(rounds=rounds), attack="garbage"))
    told = [event for event in replies_of(events) if event["status"] != "missing"]
    assert all(event["status"] == "dropped" for event in told)
    assert len({event["reason"][:25] for event in told}) >= 4


def test_wrong_targets_are_harder_to_learn_than_right_ones(tiny_recipe: Callable[..., Recipe]) -> None:
    _, clean = run_recipe(tiny_recipe(rounds=SHORT))
    _, events = run_recipe(with_drill(tiny_recipe(rounds=SHORT), attack="label_flip"))
    assert replies_of(events)[0]["loss"] != replies_of(clean)[0]["loss"]
    assert replies_of(events)[1]["loss"] > replies_of(clean)[1]["loss"]
    # what the node measures on its own held-out text is not spoilt
    assert of_kind(events, "evaluated")[0]["nodes"] == of_kind(clean, "evaluated")[0]["nodes"]


@pytest.mark.parametrize(("attack", "reason"), [("replay", "exactly these"), ("stale", "have cosine 0.99999")])
def test_a_node_sends_its_first_update_for_ever(tiny_recipe: Callable[..., Recipe], attack: str, reason: str) -> None:
    sent: list[dict[str, torch.Tensor]] = []

    def watch(node_id: int, message: Any) -> Any:
        if node_id == 3 and message.metadata.message_type == MessageType.TRAIN:
            index = read_header(message, TrainReply).index or ""
            sent.append(parcel_blocks(read_parcel(message, index, 1 << 40)))
        return message

    recipe = with_drill(tiny_recipe(), attack=attack, from_round=2)
    _, events = run_recipe(recipe, watch)
    assert [event["status"] for event in replies_of(events)] == ["accepted", "accepted", "dropped"]
    assert (
        f"a replay: the {'node has sent' if attack == 'replay' else 'updates'} {reason}"
        in replies_of(events)[2]["reason"]
    )
    honest, first, second = (blocks["trunk"] for blocks in sent)
    assert cosine(honest, first) < 0.99
    assert cosine(first, second) > 0.9999
    assert torch.equal(first, second) == (attack == "replay")


def run_with(recipe: Recipe, **hooks: Any) -> list[dict[str, Any]]:
    from pathlib import Path

    folder = RunFolder.create(Path(recipe.run_root), recipe)
    grid = grid_of(folder)
    for name, hook in hooks.items():
        setattr(grid, name, hook)
    run(grid, folder)
    return read_events(folder.events_path)


@pytest.mark.parametrize("attack", RULES)
def test_liars_that_see_the_others(tiny_recipe: Callable[..., Recipe], attack: Any) -> None:
    recipe = tiny_recipe(rounds=SHORT)
    events = run_with(recipe, _conspire=Conspiracy(attack=attack, liars=frozenset({3})))
    # The recipe has no such drill, so the label is a claim.
    assert [event["drill"] for event in replies_of(events)] == [None, None]
    assert [event["claims_drill"] for event in replies_of(events)] == [attack, attack]
    assert [event["drill"] for event in replies_of(events, "ada")] == [None, None]
    outvoted = [event["outvoted"].get(LIAR, 0) for event in of_kind(events, "round_committed")]
    assert attack != "inner_product" or all(outvoted)


def test_liars_together_are_not_equal_to_the_bit() -> None:
    conspiracy = Conspiracy(attack="inner_product", liars=frozenset({1, 2}))
    honest = [{"a": update} for update in HONEST]
    lies = [conspiracy._lie("a", honest, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    assert lies[0] is not None
    assert lies[1] is not None
    assert not torch.equal(lies[0], lies[1])
    assert norm(lies[0] - lies[1]) == pytest.approx(math.sqrt(2) * attacks.APART * norm(lies[0]), rel=0.2)
    assert conspiracy._lie("b", honest, GENERATOR) is None


def test_a_silent_node_is_missed(tiny_recipe: Callable[..., Recipe]) -> None:
    def latency(node_id: int, message: Any) -> float:
        silent = node_id == 3 and message.metadata.message_type == MessageType.TRAIN
        return math.inf if silent else 0.0

    recipe = tiny_recipe(rounds={**SHORT, "reply_deadline_s": 0.5})
    events = run_with(recipe, _latency_s=latency)
    assert [event["status"] for event in replies_of(events)] == ["missing", "missing"]
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
