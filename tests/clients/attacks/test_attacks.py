"""What each attack sends, and that each fault does to a round what it is there for."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flwr.app import MessageType

from clients.attacks.base import Learner, Seen, all_attacks, check_drill, describe, find_attack
from clients.attacks.reply_editing import parcel_blocks
from clients.attacks.updates import DISTINCT
from scripts.experiments.omniscient import OmniscientAttackers
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.exchange.messages import TrainReply, read_header, read_parcel
from strategies.voting.kernels import norm
from tests.federation import grid_of, of_kind, run_recipe
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import DrillConfig, ModelConfig, NodeSettings, Recipe
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.transformer import build_model

GENERATOR = torch.Generator().manual_seed(5)
UPDATE = torch.randn(1000, generator=GENERATOR)
COMMON = torch.randn(1000, generator=GENERATOR)
HONEST = [COMMON + 0.5 * torch.randn(1000, generator=GENERATOR) for _ in range(3)]
LIAR = "cyd"
OMNISCIENT = [attack.name for attack in all_attacks() if attack.needs == "replicas"]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def played(name: str, own: torch.Tensor = UPDATE, honest: Any = (), seed: int = 1, **drill: Any) -> torch.Tensor:
    attack = find_attack(name)
    assert attack.on_updates is not None
    generator = torch.Generator().manual_seed(seed)
    seen = Seen(
        drill=DrillConfig(attack=name, **drill),
        round=1,
        generator=generator,
        first=lambda: {"trunk": COMMON},
        honest=[{"trunk": update} for update in honest],
    )
    return attack.on_updates({"trunk": own}, seen)["trunk"]


def test_attacks_on_the_own_update() -> None:
    assert torch.equal(played("sign_flip"), -UPDATE)
    assert torch.equal(played("scale", factor=100.0), UPDATE * 100)
    assert not played("zero").any()
    assert played("nan").isnan().all()
    assert played("inf").isinf().sum() == 1 and torch.equal(played("inf")[1:], UPDATE[1:])
    noise = played("gaussian", factor=-10.0)
    assert norm(noise) == pytest.approx(10 * norm(UPDATE), rel=1e-4)
    assert abs(cosine(noise, UPDATE)) < 0.1
    assert torch.equal(noise, played("gaussian", factor=10.0))
    assert torch.equal(played("replay"), COMMON)
    assert norm(played("stale") - COMMON) == pytest.approx(DISTINCT * norm(COMMON), rel=0.01)
    assert norm(played("stale_noisy") - COMMON) == pytest.approx(0.3 * norm(COMMON), rel=0.01)


def test_one_expert_is_reversed_and_the_trunk_is_not() -> None:
    own = {"trunk": 9 * UPDATE, "layers.0.experts.0": COMMON, "layers.0.experts.1": 2 * COMMON}
    seen = Seen(drill=DrillConfig(attack="one_expert"), round=1, generator=GENERATOR)
    attack = find_attack("one_expert").on_updates
    assert attack is not None
    sent = attack(own, seen)
    assert torch.equal(sent.pop("layers.0.experts.1"), -6 * COMMON)
    assert all(torch.equal(update, own[block]) for block, update in sent.items())


def test_attacks_that_know_the_honest_updates() -> None:
    mean = torch.stack(HONEST).mean(dim=0)
    whole = (sum(HONEST) + 2 * played("inner_product", honest=HONEST)) / 5  # type: ignore[operator]
    assert cosine(whole, mean) == pytest.approx(-1.0, abs=1e-4)
    hidden = played("little_enough", honest=HONEST)
    assert float(((hidden - mean).abs() / torch.stack(HONEST).std(dim=0)).max()) == pytest.approx(1.5, rel=1e-3)
    close = played("stays_close", honest=HONEST)
    apart = [float((HONEST[i] - HONEST[j]).norm()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float((close - HONEST[0]).norm()) == pytest.approx(0.9 * sum(apart) / 3, rel=1e-3)
    assert float(close @ mean) < float(HONEST[0] @ mean)


@pytest.mark.parametrize("name", OMNISCIENT)
def test_attacks_bear_one_honest_replica_and_none_that_moved(name: str) -> None:
    assert bool(torch.isfinite(played(name, honest=[UPDATE])).all())
    assert bool(torch.isfinite(played(name, torch.zeros(10), [torch.zeros(10), torch.zeros(10)])).all())
    assert torch.equal(played(name, honest=[]), UPDATE), "a block that no honest node holds stays as it is"


def test_every_attack_says_what_it_does_and_what_it_needs() -> None:
    assert len(all_attacks()) >= 20
    for attack in all_attacks():
        assert find_attack(attack.name) is attack
        assert (attack.on_updates is None) == (attack.needs in ("message", "training"))
        told = describe(DrillConfig(attack=attack.name, factor=7.0))
        assert "{" not in told and not told.endswith(".") and told[0].islower()
        assert ("7" in told) == attack.has_factor


def test_the_label_holds_a_factor_that_was_chosen() -> None:
    labels = [DrillConfig(attack="scale", factor=factor).label for factor in (7.0, -0.5, -10.0)]
    assert [*labels, DrillConfig(attack="nan").label] == ["scale x7", "scale x-0.5", "scale", "nan"]


@pytest.mark.parametrize(
    ("drill", "devices", "message"),
    [
        ({"attack": "sing"}, None, "drill.attack: 'sing' is unknown; choose one of alternate, ascent, bit_flip"),
        ({"attack": "mod"}, None, "drill.attack: 'mod' is unknown"),
        ({"attack": "inner_product"}, None, "inner_product needs the updates of all other nodes"),
        ({"attack": "label_flip"}, 2, "label_flip is played on one device, and devices is 2"),
        ({"attack": "ascent"}, "all", "ascent is played on one device, and devices is all"),
    ],
)
def test_a_node_refuses_what_it_cannot_play(drill: dict[str, Any], devices: Any, message: str) -> None:
    node = NodeSettings(name="a", data=["x"], devices=devices, drill=DrillConfig(**drill))
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_drill(node)
    check_drill(NodeSettings(name="a", data=["x"], devices=1, drill=DrillConfig(attack="label_flip")))


def test_a_node_that_is_told_an_unknown_attack_takes_no_part(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RunError):
        run_recipe(with_drill(tiny_recipe(rounds={**SHORT, "nodes_deadline_s": 0.2}), attack="sing"))
    assert "drill.attack: 'sing' is unknown" in caplog.text


def with_drill(recipe: Recipe, **drill: Any) -> Recipe:
    nodes = [
        node.model_copy(update={"drill": DrillConfig(**drill)}) if node.name == LIAR else node for node in recipe.nodes
    ]
    return recipe.model_copy(update={"nodes": nodes})


def replies_of(events: list[dict[str, Any]], name: str = LIAR) -> list[dict[str, Any]]:
    told = [event for event in of_kind(events, "node_reply") if event["node"] == name]
    return [event for event in told if event["status"] != "late" and event.get("phase") != "evaluate"]


SHORT = {"num_rounds": 2, "local_steps": 2, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
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
    ({"attack": "one_expert"}, "accepted", ""),
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


@pytest.mark.parametrize("attack", OMNISCIENT)
def test_attackers_that_see_the_others(tiny_recipe: Callable[..., Recipe], attack: Any) -> None:
    recipe = tiny_recipe(rounds=SHORT)
    events = run_with(recipe, _exchange=OmniscientAttackers(drill=DrillConfig(attack=attack), attackers=frozenset({3})))
    # The recipe has no such drill, so the label is a claim.
    assert [event["drill"] for event in replies_of(events)] == [None, None]
    assert [event["claims_drill"] for event in replies_of(events)] == [attack, attack]
    assert [event["drill"] for event in replies_of(events, "ada")] == [None, None]
    outvoted = [event["outvoted"].get(LIAR, 0) for event in of_kind(events, "round_committed")]
    assert attack != "inner_product" or all(outvoted)


def test_attackers_together_are_not_equal_to_the_bit() -> None:
    attackers = OmniscientAttackers(drill=DrillConfig(attack="inner_product"), attackers=frozenset({1, 2}))
    honest = [{"a": update} for update in HONEST]
    one, two = (attackers.wrong_updates({"a": UPDATE, "b": UPDATE}, honest, 1, name) for name in ("x", "y"))
    assert not torch.equal(one["a"], two["a"])
    assert norm(one["a"] - two["a"]) == pytest.approx(math.sqrt(2) * DISTINCT * norm(one["a"]), rel=0.2)
    assert torch.equal(one["b"], UPDATE), "no honest node holds this block"


@pytest.mark.parametrize("mode", [{}, {"experts": {"unheld": "absent"}}], ids=["train", "absent"])
def test_ascent_climbs_the_loss_by_steps_as_long_as_the_honest_ones(
    tiny_recipe: Callable[..., Recipe], mode: dict[str, Any]
) -> None:
    sent: list[dict[str, torch.Tensor]] = []

    def watch(node_id: int, message: Any) -> Any:
        if node_id == 3 and message.metadata.message_type == MessageType.TRAIN:
            index = read_header(message, TrainReply).index or ""
            sent.append(parcel_blocks(read_parcel(message, index, 1 << 40)))
        return message

    recipe = tiny_recipe(rounds={**SHORT, "num_rounds": 1, "local_steps": 12}, **mode)
    run_recipe(recipe, watch)
    _, events = run_recipe(with_drill(recipe, attack="ascent"), watch)
    assert [event["drill"] for event in replies_of(events)] == ["ascent"]
    honest, uphill = (torch.cat([blocks[name] for name in sorted(blocks)]) for blocks in sent)
    assert norm(uphill) == pytest.approx(norm(honest), rel=1e-3)
    assert cosine(uphill, honest) < -0.2


def test_a_silent_node_is_missed(tiny_recipe: Callable[..., Recipe]) -> None:
    def latency(node_id: int, message: Any) -> float:
        silent = node_id == 3 and message.metadata.message_type == MessageType.TRAIN
        return math.inf if silent else 0.0

    recipe = tiny_recipe(rounds={**SHORT, "reply_deadline_s": 0.5})
    events = run_with(recipe, _latency_s=latency)
    assert [event["status"] for event in replies_of(events)] == ["missing", "missing"]
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_patient_attacks_stay_inside_the_thresholds() -> None:
    model = build_model(ModelConfig(layers=1, width=8, heads=2, experts=2, top_k=1, expert_width=8), 16, 0)
    layout = BlockLayout.of(model.block_values())
    draw = torch.Generator().manual_seed(0)
    own = {block: torch.randn(spec.numel, generator=draw) for block, spec in layout.specs.items()}
    batches: list[tuple[torch.Tensor, ...]] = []
    learner = Learner(model=model, batches=batches, learning_rate=1e-3)

    def sent(name: str, number: int = 1, **drill: Any) -> Blocks:
        attack = find_attack(name).on_updates
        assert attack is not None
        generator = torch.Generator().manual_seed(number)
        drill_config = DrillConfig(attack=name, **drill)
        return attack(own, Seen(drill=drill_config, round=number, generator=generator, learner=learner))

    false = sent("gain_overshoot")["trunk"]
    assert cosine(false, own["trunk"]) == pytest.approx(0.4, abs=1e-3)
    assert norm(false) == pytest.approx(2.7 * norm(own["trunk"]), rel=1e-3)
    moved = (sent("gain_shift", factor=-0.25)["trunk"] != own["trunk"]).nonzero().flatten()
    gains = [s for s in layout.specs["trunk"].slots if len(s.shape) == 1]
    assert len(moved) == sum(slot.numel for slot in gains) > 0
    assert all(torch.equal(sent("alternate", 1)[block], -update) for block, update in own.items())
    assert all(torch.equal(sent("alternate", 2)[block], update) for block, update in own.items())
    drifts = [{b: sent("drift", number, factor=0.5)[b] - own[b] for b in own} for number in (1, 2)]
    assert all(torch.equal(drifts[0][block], drifts[1][block]) for block in own)
    assert norm(drifts[0]["trunk"]) == pytest.approx(0.5 * norm(own["trunk"]), rel=1e-3)
    assert cosine(played("near_copy", honest=HONEST), HONEST[0]) == pytest.approx(0.99995, abs=1e-4)
    assert cosine(played("mimic", honest=HONEST, factor=0.3), HONEST[0]) == pytest.approx(1 / 1.09**0.5, abs=5e-3)
    slots = {slot.tensor: slice(slot.offset, slot.offset + slot.numel) for slot in layout.specs["trunk"].slots}
    routers, head = slots["layers.0.router.weight"], slots["head.weight"]
    turned = sent("router", factor=-1.4)["trunk"]
    assert torch.allclose(turned[routers], -1.4 * own["trunk"][routers])
    turned[routers] = own["trunk"][routers]
    assert torch.equal(turned, own["trunk"])
    backwards = [
        {block for block, update in sent("rotating_expert", n).items() if (update == -own[block]).all()} for n in (1, 2)
    ]
    assert sorted(len(blocks) for blocks in backwards) == [1, 1] and backwards[0] != backwards[1]
    tokens = torch.zeros(1, 4, dtype=torch.long)
    batches.append((tokens, tokens))
    changed = (sent("one_token", factor=0.9)["trunk"] - own["trunk"]).nonzero().flatten()
    assert 0 < len(changed) <= 8 and head.start <= int(changed.min()) and int(changed.max()) < head.stop
