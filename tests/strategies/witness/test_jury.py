"""The jury on quadratic losses: whom it convicts, whom it does not, and what it depends on."""

from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from torch import Tensor

from strategies.voting.vote import Agreement, vote
from strategies.witness.candidates import CandidateModels, witnessed_mean
from strategies.witness.jury import Judgement, Jury
from strategies.witness.loss_increase import Harm, Loss, harm
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.config import WitnessConfig

CONFIG = WitnessConfig(data=["public.txt"])
EXPERT = "layers.0.experts.0"
WINDOWS = 24
SIZE = 40

Updates = dict[str, dict[str, Tensor]]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def base() -> Blocks:
    return {EXPERT: torch.zeros(SIZE), TRUNK: torch.zeros(2 * SIZE)}


def target(domain: int, strangeness: float) -> Tensor:
    """What a domain wants: something that all want, and something of its own, at right angles to the others'."""
    own = torch.zeros(3 * SIZE)
    own[domain::12] = strangeness * 12**0.5
    return 1.0 + own


def loss_on(*domains: int, strangeness: float = 0.0, noise: float = 0.3, seed: int = 0) -> Loss:
    """A quadratic bowl a window, round its domain's target and a little beside it."""
    centres = [target(d, strangeness) + noise * draw(100 * seed + d, WINDOWS, 3 * SIZE) for d in domains]

    def loss(blocks: Blocks) -> list[Tensor]:
        point = torch.cat([blocks[EXPERT], blocks[TRUNK]])
        return [((point - centre) ** 2).mean(1).double() for centre in centres]

    return loss


def split(flat: Tensor) -> dict[str, Tensor]:
    return {EXPERT: flat[:SIZE].clone(), TRUNK: flat[SIZE:].clone()}


def honest(domain: int, strangeness: float = 0.0, step: float = 0.2) -> dict[str, Tensor]:
    noise = 0.05 * draw(7 + domain, 3 * SIZE)
    return split(step * (target(domain, strangeness) + noise))


def scaled(updates: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {block: factor * update for block, update in updates.items()}


def holders(replicas: Updates) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys((EXPERT, TRUNK), tuple(replicas))


def nodes(count: int, strangeness: float = 0.0) -> Updates:
    return {f"n{i}": honest(i, strangeness) for i in range(count)}


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_honest_strangers_are_not_convicted(count: int) -> None:
    replicas = nodes(count, 3.0)
    jury = Jury(CONFIG)
    for number in range(8):
        found = jury.judge(base(), replicas, holders(replicas), loss_on(*range(count), strangeness=3.0, seed=number))
        assert found.convicted == ()
        assert found.scales == {}
        assert all(score < 0 for score in found.scores.values())


@pytest.mark.parametrize("factor", [-1.0, -3.0, -0.6, 100.0, 0.0, 0.3, float("nan"), float("inf")])
@pytest.mark.parametrize("count", [3, 4, 9])
def test_one_liar_is_convicted_and_nobody_else(factor: float, count: int) -> None:
    replicas = nodes(count, 1.0)
    replicas["n1"] = scaled(replicas["n1"], factor)
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss_on(*range(count), strangeness=1.0))
    assert found.convicted == ("n1",)
    assert list(found.reasons) == ["n1"]


def test_the_scores_are_those_of_the_definition() -> None:
    replicas = nodes(3)
    replicas["n1"] = scaled(replicas["n1"], -1.0)
    loss = loss_on(0, 1, 2)
    lenient = CONFIG.model_copy(update={"tau_times_n": 10.0})
    found = Jury(lenient).judge(base(), replicas, holders(replicas), loss)
    assert found.convicted == ()

    def measured(names: list[str]) -> Tensor:
        means = {block: sum(replicas[name][block] for name in names) / 3 for block in base()}
        return torch.stack(list(loss({block: base()[block] + mean for block, mean in means.items()})))

    after = measured(["n0", "n1", "n2"])
    left_out = {name: measured([other for other in replicas if other != name]) for name in replicas}
    before = torch.stack(list(loss(base())))
    gain = max(float((before - losses).mean()) for losses in [after, *left_out.values()])
    assert found.gain == pytest.approx(gain, rel=1e-4)
    for name, losses in left_out.items():
        harm = after - losses
        assert found.harms[name] == pytest.approx(float(harm.mean()), rel=1e-3)
        assert found.scores[name] == pytest.approx(float(harm.mean()) / gain, rel=1e-3)
        error = (harm.var(dim=1).sum() / WINDOWS).sqrt() / 3
        assert found.t[name] == pytest.approx(float(harm.mean() / error), rel=1e-2)


def test_the_floor_holds_near_convergence() -> None:
    replicas = {name: scaled(updates, 0.1) for name, updates in nodes(3).items()}
    replicas["n1"] = scaled(replicas["n1"], -1.0)
    near = {block: torch.full_like(flat, 0.97) for block, flat in base().items()}
    loss = loss_on(0, 1, 2, noise=0.0)
    assert Jury(CONFIG).judge(near, replicas, holders(replicas), loss).convicted == ()
    without = CONFIG.model_copy(update={"floor_nats": 0.0})
    assert Jury(without).judge(near, replicas, holders(replicas), loss).convicted == ("n1",)


def test_noise_on_few_windows_convicts_nobody() -> None:
    replicas = nodes(3)
    replicas["n1"] = split(0.2 * draw(3, 3 * SIZE))

    def two_minds(blocks: Blocks) -> list[Tensor]:
        value = torch.cat([blocks[EXPERT], blocks[TRUNK]]).sum().double()
        return [torch.stack([value, -1.1 * value])]

    assert Jury(CONFIG).judge(base(), replicas, holders(replicas), two_minds).convicted == ()
    lone = Jury(CONFIG).judge(base(), replicas, holders(replicas), lambda b: [two_minds(b)[0][:1]])
    assert lone.convicted == (), "one window has no spread"


def test_sources_of_different_level_do_not_blur_the_harm() -> None:
    def harmed(shift: float) -> Harm:
        noise = 0.1 * draw(4, 2, 12).double()
        return harm([noise[0] + 1.0, noise[1] + 1.0 + shift], [torch.zeros(12), torch.zeros(12)])

    assert harmed(0.0).t == pytest.approx(harmed(5.0).t * harmed(0.0).nats / harmed(5.0).nats)
    one, two = torch.tensor([1.0, 3.0]), torch.tensor([5.0])
    assert harm([one, two], [torch.zeros(2), torch.zeros(1)]) == Harm(3.5, 0.0), "sources weigh the same"


def test_a_broken_loss_is_a_great_harm_not_an_error() -> None:
    replicas = nodes(3)
    calls = loss_on(0, 1, 2)

    def loss(blocks: Blocks) -> list[Tensor]:
        return [torch.where(blocks[EXPERT][0] > 0.15, part, torch.nan) for part in calls(blocks)]

    replicas["n2"][EXPERT][0] = -0.3
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss)
    assert all(abs(value) < 1e7 for value in [found.gain, *found.harms.values(), *found.t.values()])


@pytest.mark.parametrize(("count", "liars", "most"), [(3, 2, 1), (4, 2, 2), (5, 3, 2), (9, 3, 3)])
def test_no_more_than_half_is_convicted_in_a_round(count: int, liars: int, most: int) -> None:
    replicas = {f"n{i:02}": honest(0) for i in range(count)}
    for i in range(liars):
        replicas[f"n{i:02}"] = scaled(honest(0), -2.0 - i / 10)
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss_on(0))
    assert found.convicted == tuple(f"n{liars - 1 - i:02}" for i in range(most)), "the worst first"


def test_a_pair_of_nine_is_convicted_in_one_round() -> None:
    replicas = nodes(9, 1.0)
    for name in ("n3", "n7"):
        replicas[name] = scaled(replicas[name], -1.0)
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss_on(*range(9), strangeness=1.0))
    assert sorted(found.convicted) == ["n3", "n7"]


def test_who_is_left_after_a_conviction_is_scored_without_the_convicted() -> None:
    replicas = nodes(3, 1.0)
    liar = {**replicas, "n1": scaled(replicas["n1"], -2.0)}
    rest = {name: replicas[name] for name in ("n0", "n2")}
    loss = loss_on(0, 1, 2, strangeness=1.0)
    found = Jury(CONFIG).judge(base(), liar, holders(liar), loss)
    alone = Jury(CONFIG).judge(base(), rest, holders(rest), loss)
    assert found.convicted == ("n1",)
    assert {name: found.scores[name] for name in rest} == alone.scores


def poisoned(factor: float) -> Updates:
    """Three nodes that hold four experts; one reverses one expert and is honest with the rest."""
    replicas = {}
    for i in range(3):
        part = honest(i, 0.5)
        replicas[f"n{i}"] = {f"{EXPERT}{k}": part[EXPERT][k * 10 : k * 10 + 10].clone() for k in range(4)}
        replicas[f"n{i}"][TRUNK] = part[TRUNK]
    replicas["n1"][f"{EXPERT}2"] *= factor
    return replicas


def judged(replicas: Updates) -> Judgement:
    start = {block: torch.zeros_like(flat) for block, flat in replicas["n0"].items()}
    whole = loss_on(0, 1, 2, strangeness=0.5)

    def loss(blocks: Blocks) -> Sequence[Tensor]:
        return whole({EXPERT: torch.cat([blocks[f"{EXPERT}{k}"] for k in range(4)]), TRUNK: blocks[TRUNK]})

    who = {block: tuple(replicas) for block in start}
    return Jury(CONFIG).judge(start, replicas, who, loss)


def test_one_poisoned_expert_is_struck_and_its_node_keeps_its_vote() -> None:
    found = judged(poisoned(-1.5))
    assert found.convicted == ()
    assert found.struck == {f"{EXPERT}2": "n1"}
    assert not found.counts("n1", f"{EXPERT}2")
    assert found.counts("n0", f"{EXPERT}2") and found.counts("n1", TRUNK)
    assert set(found.asked) == {f"{EXPERT}2"}, "no other expert is asked about"
    assert judged(poisoned(1.0)).asked == {}, "where all pull together, it costs nothing"


def test_equal_replicas_count_once_and_are_convicted_together() -> None:
    replicas = nodes(4, 1.0)
    replicas["n2"] = replicas["n3"] = scaled(replicas["n2"], -1.0)
    once = {name: replicas[name] for name in ("n0", "n1", "n2")}
    loss = loss_on(0, 1, 2, 3, strangeness=1.0)
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss)
    alone = Jury(CONFIG).judge(base(), once, holders(once), loss)
    assert found.harms["n3"] == pytest.approx(alone.harms["n2"])
    assert found.convicted == ("n2", "n3")
    assert found.reasons["n3"] == "its update is equal to that of n2"
    assert found.scores["n0"] < 0


def test_two_equal_liars_alone_leave_nothing() -> None:
    replicas = dict.fromkeys(("n0", "n1"), scaled(honest(0), -1.0))
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss_on(0))
    assert sorted(found.convicted) == ["n0", "n1"]


def test_the_order_of_arrival_does_not_matter() -> None:
    replicas = nodes(4, 1.0)
    replicas["n2"] = scaled(replicas["n2"], -1.0)
    found = [
        Jury(CONFIG).judge(base(), {name: replicas[name] for name in order}, holders(replicas), loss_on(0, 1, 2, 3))
        for order in permutations(replicas)
    ]
    assert all(other == found[0] for other in found)


def test_the_past_neither_excuses_nor_convicts() -> None:
    bad = nodes(3)
    bad["n1"] = scaled(bad["n1"], -1.0)
    jury = Jury(CONFIG)
    for number, replicas in enumerate([nodes(3), bad, nodes(3)]):
        found = jury.judge(base(), replicas, holders(bad), loss_on(0, 1, 2, seed=number))
        assert found.convicted == (("n1",) if replicas is bad else ())


def test_a_replica_that_is_too_long_is_cut_in_the_score_and_in_the_mean() -> None:
    replicas = nodes(3)
    replicas["n2"][EXPERT] = -4.5 * replicas["n2"][EXPERT]
    found = Jury(CONFIG.model_copy(update={"min_t": 1e9})).judge(base(), replicas, holders(replicas), loss_on(0, 1, 2))
    assert list(found.scales) == [EXPERT]
    [(part, multipliers)] = found.scales[EXPERT]
    assert part == (slice(0, SIZE),)
    assert 0.3 < multipliers["n2"] < 0.375
    block = {name: updates[EXPERT] for name, updates in replicas.items()}
    update = witnessed_mean(block, found.scales[EXPERT])
    expected = (block["n0"] + block["n1"] + multipliers["n2"] * block["n2"]) / 3
    assert torch.allclose(update, expected, atol=1e-6)


def test_of_a_block_with_parts_only_the_part_that_is_too_long_is_cut() -> None:
    replicas = nodes(3)
    parts = ((slice(0, 10), slice(20, 30)), (slice(10, 20), slice(30, 2 * SIZE)))
    for where in parts[0]:
        replicas["n2"][TRUNK][where] *= 2.5
    jury = Jury(CONFIG.model_copy(update={"min_t": 1e9}))
    found = jury.judge(base(), replicas, holders(replicas), loss_on(0, 1, 2), parts={TRUNK: parts})
    assert list(found.scales) == [TRUNK]
    (_, cut), (_, kept) = found.scales[TRUNK]
    assert list(cut) == ["n2"] and not kept
    block = {name: updates[TRUNK] for name, updates in replicas.items()}
    update, plain = witnessed_mean(block, found.scales[TRUNK]), witnessed_mean(block)
    for where in parts[1]:
        assert torch.equal(update[where], plain[where])
    for where in parts[0]:
        expected = plain[where] - (1 - cut["n2"]) * block["n2"][where] / 3
        assert torch.allclose(update[where], expected, atol=1e-6)
    # The score is that of what is applied.
    gone = CandidateModels(base(), replicas, holders(replicas), found.scales)
    without = gone.without(gone.terms("n2"))[TRUNK]
    others = (block["n0"] + block["n1"]) / 3
    assert torch.allclose(without, others, atol=1e-6)


def test_without_a_fault_the_mean_is_the_vote_bit_for_bit() -> None:
    block = {name: updates[TRUNK] for name, updates in nodes(4).items()}
    expected, _ = vote("mean", block, Agreement())
    assert expected is not None
    assert torch.equal(witnessed_mean(block), expected)


def test_nodes_may_hold_different_blocks_and_types() -> None:
    replicas = nodes(4)
    del replicas["n3"][EXPERT]
    replicas["n1"] = {block: update.bfloat16() for block, update in scaled(replicas["n1"], -1.0).items()}
    held = {EXPERT: ("gone", "n0", "n1", "n2"), TRUNK: ("gone", "n0", "n1", "n2", "n3")}
    start = base()
    found = Jury(CONFIG).judge(start, replicas, held, loss_on(0, 1, 2))
    assert found.convicted == ("n1",)
    assert all(torch.equal(start[block], flat) for block, flat in base().items()), "the base is not touched"


def test_with_one_node_or_none_there_is_nothing_to_judge() -> None:
    lone = {"n0": scaled(honest(0), -1.0)}
    for replicas in ({}, lone):
        assert Jury(CONFIG).judge(base(), replicas, holders(lone), loss_on(0)).convicted == ()


def test_of_two_of_different_size_neither_is_insane() -> None:
    replicas = {"n0": honest(0), "n1": scaled(honest(1), 100.0)}
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss_on(0, 1))
    assert found.convicted in ((), ("n1",))
    assert found.scales[TRUNK][0][1]["n1"] == pytest.approx(0.015, rel=0.1)


def test_a_liar_that_overshoots_has_no_honest_node_convicted() -> None:
    """All honest steps together end where the loss is least, so with a longer one too much of it is gone."""
    replicas = {f"n{i}": honest(i, step=1.2) for i in range(3)}
    replicas["n2"] = scaled(replicas["n2"], 1.5)
    loss = loss_on(0, 1, 2)
    found = Jury(CONFIG).judge(base(), replicas, holders(replicas), loss)
    assert found.harms["n0"] > CONFIG.floor_nats and found.t["n0"] > CONFIG.min_t, "by itself that would be enough"
    assert {"n0", "n1"}.isdisjoint(found.convicted)
    assert found.struck == {}


@pytest.mark.parametrize("factor", [-1.0, -1.5, -2.9])
def test_two_liars_of_four_are_convicted_and_nobody_else(factor: float) -> None:
    for seed in range(20):
        replicas = nodes(4, 1.0)
        for i in (seed % 4, (seed + 1 + seed // 4 % 3) % 4):
            replicas[f"n{i}"] = scaled(replicas[f"n{i}"], factor - 0.01 * i)
        liars = {f"n{seed % 4}", f"n{(seed + 1 + seed // 4 % 3) % 4}"}
        loss = loss_on(0, 1, 2, 3, strangeness=1.0, seed=seed)
        assert set(Jury(CONFIG).judge(base(), replicas, holders(replicas), loss).convicted) == liars
