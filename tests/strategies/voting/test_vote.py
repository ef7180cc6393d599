"""Votes: the rules for every number of replicas, and what no single replica can do."""

from itertools import combinations, permutations
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.voting.kernels import CHUNK, median, norm
from strategies.voting.vote import Agreement, Verdict, alike, vote

AGREE = Agreement(cosine=-0.2, norm_ratio=3.0)


def replicas(*rows: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(row) for name, row in zip("abcdefghi", rows, strict=False)}


def random(seed: int, count: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("count", [3, 4, 5, 9])
@pytest.mark.parametrize("size", [1, 7, CHUNK, CHUNK + 3])
def test_median_equals_numpy_bit_for_bit(count: int, size: int) -> None:
    updates = random(count * size, count, size)
    expected = np.median(np.stack([update.numpy() for update in updates]), axis=0)
    assert np.array_equal(median(updates).numpy(), expected)


def test_agreeing_replicas_give_the_plain_mean_bit_for_bit() -> None:
    base = torch.randn(CHUNK + 5, generator=torch.Generator().manual_seed(0))
    updates = {name: base + 0.1 * noise for name, noise in zip("abc", random(1, 3, base.numel()), strict=True)}
    update, verdict = vote("majority", updates, AGREE)
    assert update is not None
    assert torch.equal(update, (updates["a"] + updates["b"] + updates["c"]) / 3)
    assert (verdict.outcome, verdict.accepted, verdict.outvoted) == ("unanimous", ("a", "b", "c"), ())


@pytest.mark.parametrize("lie", [-1.0, -10.0, 100.0, 0.0, 0.3, -0.3])
def test_one_liar_of_three_is_outvoted_and_changes_nothing(lie: float) -> None:
    base = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    honest = [base + 0.1 * noise for noise in random(1, 2, 1000)]
    update, verdict = vote("majority", {"a": honest[0], "b": honest[1], "liar": lie * base}, AGREE)
    assert update is not None
    assert (verdict.outcome, verdict.accepted, verdict.outvoted) == ("majority", ("a", "b"), ("liar",))
    assert torch.allclose(update, (honest[0] + honest[1]) / 2, atol=0.05)


def around(center: torch.Tensor, noise: float, seed: int, count: int) -> list[torch.Tensor]:
    return [center + noise * other for other in random(seed, count, center.numel())]


@pytest.mark.parametrize(("count", "odd"), [(3, 1), (5, 2), (9, 2), (9, 4)])
def test_the_odd_ones_lose_where_a_majority_is_closer_to_itself(count: int, odd: int) -> None:
    center = random(0, 1, 2000)[0]
    # Honest ones have a cosine of 0.7 with each other, the odd ones of about 0.2: all agree, without a margin.
    updates = around(center, 0.65, 1, count - odd) + around(0.25 * center, 1.0, 2, odd)
    named = dict(zip("abcdefghi", updates, strict=False))
    plain, verdict = vote("majority", named, Agreement(cosine=0.0))
    assert verdict.outcome == "unanimous"
    update, verdict = vote("majority", named, Agreement(cosine=0.0, margin=0.3))
    assert verdict.outcome == "majority"
    assert list(verdict.outvoted) == list("abcdefghi"[count - odd : count])
    assert update is not None
    assert torch.allclose(update, torch.stack(updates[: count - odd]).mean(dim=0), atol=0.15)
    assert torch.equal(vote("majority", named, Agreement(cosine=0.0, margin=0.9))[0], plain)  # type: ignore[arg-type]


def test_a_margin_costs_nothing_where_all_are_alike_and_two_have_no_majority() -> None:
    center = random(0, 1, 2000)[0]
    named = dict(zip("abcde", around(center, 0.65, 1, 5), strict=True))
    strict = Agreement(cosine=0.0, margin=0.3)
    assert torch.equal(vote("majority", named, strict)[0], vote("mean", named, strict)[0])  # type: ignore[arg-type]
    two = {"a": center, "b": 0.2 * center + random(3, 1, 2000)[0]}
    assert vote("majority", two, strict)[1].accepted == ("a", "b")
    tiny = {name: 1e-12 * other for name, other in zip("abc", random(4, 3, 2000), strict=True)}
    assert vote("majority", tiny, strict)[1].outcome == "unanimous"


def test_the_order_of_arrival_does_not_matter() -> None:
    updates = dict(zip("abcd", random(3, 4, 5000), strict=True))
    for rule in ("majority", "median", "mean"):
        results = [vote(rule, {name: updates[name] for name in order}, AGREE) for order in permutations("abcd")]
        assert all(verdict == results[0][1] for _, verdict in results)
        assert all(torch.equal(update, results[0][0]) for update, _ in results)


def test_three_strangers_take_the_clipped_median_and_the_loudest_is_named() -> None:
    x, y = [1.0, 0.0, 0.0], [-1.0, 0.1, 0.0]
    update, verdict = vote("majority", replicas(x, y, [0.0, -300.0, 400.0]), AGREE)
    assert verdict.outcome == "median"
    assert verdict.outvoted == ("c",)
    assert update is not None
    assert norm(update) <= 1.01


def test_two_left_agree_or_nothing_moves() -> None:
    update, verdict = vote("majority", replicas([1.0, 0.0], [1.0, 0.5]), AGREE)
    assert verdict.outcome == "majority"
    assert torch.equal(update, torch.tensor([1.0, 0.25]))
    update, verdict = vote("majority", replicas([1.0, 0.0], [-1.0, 0.0]), AGREE)
    assert (update, verdict.outcome, verdict.accepted) == (None, "kept", ())


def test_one_left_takes_a_third_of_a_capped_step_and_never_twice_running() -> None:
    update, verdict = vote("majority", replicas([30.0, 40.0]), AGREE, norm_cap=5.0)
    assert verdict.outcome == "unverified"
    assert norm(update) == pytest.approx(5 / 3)
    update, verdict = vote("majority", replicas([30.0, 40.0]), AGREE, norm_cap=5.0, may_be_unverified=False)
    assert (update, verdict.outcome) == (None, "kept")


@pytest.mark.parametrize("rule", ["majority", "median", "mean"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_one_left_counts_for_nothing_while_no_norm_is_known(rule: str, size: float) -> None:
    alone = replicas([size] * 50)
    copies = {**alone, "b": alone["a"].clone()}
    assert vote(rule, alone, AGREE)[1] == Verdict(outcome="kept")
    if rule != "mean":
        assert vote(rule, copies, AGREE)[1] == Verdict(outcome="kept"), "a copy is no second witness"
    update, verdict = vote(rule, alone, AGREE, norm_cap=0.7)
    assert verdict.outcome == "unverified"
    assert norm(update) <= 0.7 / 3 * 1.0001


def test_none_left_keeps_the_block() -> None:
    update, verdict = vote("majority", {}, AGREE)
    assert (update, verdict.outcome) == (None, "kept")


def test_a_copy_does_not_count_as_a_second_vote() -> None:
    honest, liar = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    update, verdict = vote("majority", {"a": honest, "b": liar, "c": liar.clone()}, AGREE)
    assert (update, verdict.outcome) == (None, "kept")


def test_four_and_more_keep_those_that_agree_with_half() -> None:
    base = torch.ones(50)
    good = {name: base + 0.1 * noise for name, noise in zip("abcd", random(5, 4, 50), strict=True)}
    update, verdict = vote("majority", {**good, "x": -base}, AGREE)
    assert verdict.outcome == "majority"
    assert verdict.outvoted == ("x",)
    assert float(update.mean()) == pytest.approx(1.0, abs=0.1)


def test_zero_updates_agree_with_each_other() -> None:
    zeros = {name: torch.zeros(4) for name in "ab"}
    _, verdict = vote("majority", {**zeros, "c": torch.full((4,), 1e-12)}, AGREE)
    assert verdict.outvoted == ()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1024, 1024, width=32), min_size=2, max_size=2), st.floats(width=32, allow_nan=False))
def test_one_bad_replica_moves_the_median_only_within_the_honest_range(honest: list[float], bad: float) -> None:
    update = float(median([torch.tensor([honest[0]]), torch.tensor([bad]), torch.tensor([honest[1]])]))
    assert min(honest) <= update <= max(honest)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9), st.floats(-1, 0.9))
def test_a_vote_never_exceeds_what_its_voters_sent(seed: int, count: int, cosine: float) -> None:
    updates = dict(zip("abcdefghi", random(seed, count, 40), strict=False))
    update, verdict = vote("majority", updates, Agreement(cosine=cosine, norm_ratio=3.0))
    assert set(verdict.accepted).isdisjoint(verdict.outvoted)
    if update is not None:
        stacked = torch.stack(list(updates.values())).abs()
        assert bool((update.abs() <= stacked.max(dim=0).values + 1e-5).all())


@pytest.mark.parametrize("rule", ["majority", "median", "mean"])
@pytest.mark.parametrize("lie", [1.0, -2.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_bfloat16_replicas_count_as_their_values_in_float32(rule: str, lie: float, count: int) -> None:
    base = torch.randn(CHUNK + 7, generator=torch.Generator().manual_seed(0))
    short = {name: (base + noise).bfloat16() for name, noise in zip("abcde", random(1, count, CHUNK + 7), strict=False)}
    short["a"] = short["a"] * lie
    update, verdict = vote(rule, short, AGREE)
    expected, same = vote(rule, {name: replica.float() for name, replica in short.items()}, AGREE)
    assert verdict == same
    if update is None or expected is None:
        assert update is expected
    else:
        assert update.dtype == torch.float32
        assert torch.equal(update, expected)


@pytest.mark.parametrize("rule", ["majority", "median", "mean"])
@pytest.mark.parametrize("lie", [1.0, -2.0, 50.0])
def test_known_norms_and_given_memory_change_nothing(rule: str, lie: float) -> None:
    base = torch.randn(3 * CHUNK, generator=torch.Generator().manual_seed(0))
    updates = {name: base + noise for name, noise in zip("abc", random(1, 3, 3 * CHUNK), strict=True)}
    updates["b"] *= lie
    plain, verdict = vote(rule, updates, AGREE)
    memory = torch.full((3 * CHUNK,), float("nan"))
    norms = {name: norm(update) for name, update in updates.items()}
    update, same = vote(rule, updates, AGREE, norms=norms, result=memory)
    assert update is memory
    assert plain is not None
    assert torch.equal(update, plain)
    assert verdict == same


def test_a_beginning_that_is_not_like_the_rest_decides_nothing() -> None:
    base = torch.randn(4 * CHUNK, generator=torch.Generator().manual_seed(0))
    updates = {name: base + 0.1 * noise for name, noise in zip("abc", random(1, 3, base.numel()), strict=True)}
    quarrel = {name: update.clone() for name, update in updates.items()}
    quarrel["b"][:CHUNK] *= -1
    update, verdict = vote("majority", quarrel, AGREE)
    assert verdict.outcome == "unanimous"
    assert torch.equal(update, (quarrel["a"] + quarrel["b"] + quarrel["c"]) / 3)
    quarrel["b"][CHUNK:] *= -1
    quarrel["b"][:CHUNK] *= -1
    update, verdict = vote("majority", quarrel, AGREE)
    assert verdict.outvoted == ("b",)
    assert torch.allclose(update, (quarrel["a"] + quarrel["c"]) / 2, rtol=0.01, atol=0.01)


# Textbook definitions in double precision. They follow the papers, not our code.


def closest_pair(points: np.ndarray) -> set[int]:
    """MDA for one fault of three (El Mhamdi et al., arXiv 1905.03853): the subset of least diameter."""
    return set(min(combinations(range(3), 2), key=lambda pair: np.linalg.norm(points[pair[0]] - points[pair[1]])))


def flattest_pair(points: np.ndarray) -> set[int]:
    """SMEA (Allouah et al., arXiv 2302.04787): the subset whose covariance has the least largest eigenvalue."""
    return set(
        min(
            combinations(range(3), 2),
            key=lambda pair: np.linalg.norm(points[list(pair)] - points[list(pair)].mean(axis=0), ord=2),
        )
    )


def krum(points: np.ndarray) -> int:
    """Krum (Blanchard et al., 2017): the point nearest to its nearest; n - f - 2 = 0 neighbours are taken as one."""
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2) + np.diag([np.inf] * len(points))
    return int(distances.min(axis=1).argmin())


def trimmed_mean(points: np.ndarray, cut: int) -> np.ndarray:
    """Coordinate-wise trimmed mean (Yin et al., arXiv 1803.01498)."""
    return np.sort(points, axis=0)[cut : len(points) - cut].mean(axis=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["flip", "scale", "noise"]), st.integers(0, 2))
def test_the_pair_that_outvotes_is_the_one_of_mda_and_smea(seed: int, attack: str, place: int) -> None:
    base = random(seed, 1, 300)[0]
    updates = [base + 0.4 * noise for noise in random(seed + 1, 3, 300)]
    noise = random(seed + 2, 1, 300)[0]
    updates[place] = {"flip": -updates[place], "scale": 100 * updates[place], "noise": 10 * noise}[attack]
    points = np.stack([update.double().numpy() for update in updates])
    update, verdict = vote("majority", dict(zip("abc", updates, strict=True)), AGREE)
    pair = closest_pair(points)
    assert verdict.outcome == "majority"
    assert verdict.accepted == tuple("abc"[i] for i in sorted(pair))
    assert flattest_pair(points) == pair
    assert krum(points) in pair
    sizes = np.linalg.norm(points, axis=1)
    middle = np.mean([sizes[i] for i in pair])
    expected = np.mean([points[i] * min(1.0, middle / sizes[i]) for i in pair], axis=0)
    assert update is not None
    assert np.allclose(update.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [3, 5, 9])
def test_an_odd_median_is_the_mean_trimmed_to_one(count: int) -> None:
    points = np.stack([update.numpy() for update in random(count, count, 100)])
    update, _ = vote(
        "median", {name: torch.from_numpy(row) for name, row in zip("abcdefghi", points, strict=False)}, AGREE
    )
    assert update is not None
    assert np.array_equal(update.numpy(), trimmed_mean(points, count // 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 9), st.randoms(use_true_random=False))
def test_who_has_which_name_does_not_matter(seed: int, count: int, shuffle: Random) -> None:
    names = list("abcdefghi"[:count])
    base = random(seed, 1, 64)[0]
    updates = [base + noise for noise in random(seed + 1, count, 64)]
    other = shuffle.sample(names, count)
    for rule in ("majority", "median"):
        update, verdict = vote(rule, dict(zip(names, updates, strict=True)), AGREE)
        again, same = vote(rule, dict(zip(other, updates, strict=True)), AGREE)
        renamed = dict(zip(names, other, strict=True))
        assert same.outcome == verdict.outcome
        assert same.accepted == tuple(sorted(renamed[name] for name in verdict.accepted))
        assert same.outvoted == tuple(sorted(renamed[name] for name in verdict.outvoted))
        assert update is not None and again is not None
        assert torch.allclose(again, update, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 9), st.integers(1, 300))
def test_unanimity_is_the_mean_bit_for_bit(seed: int, count: int, size: int) -> None:
    base = random(seed, 1, size)[0] + 5
    updates = [base + 0.1 * noise for noise in random(seed + 1, count, size)]
    update, verdict = vote("majority", dict(zip("abcdefghi", updates, strict=False)), AGREE)
    assert verdict.outcome == "unanimous"
    assert update is not None
    total = updates[0].numpy()
    for other in updates[1:]:
        total = total + other.numpy()
    assert np.array_equal(update.numpy(), total / np.float32(count))


@pytest.mark.parametrize("count", [3, 5, 7])
def test_median_and_mean_are_those_of_byzfl(count: int) -> None:
    """An independent reference, not among the dependencies: it brings torchvision and matplotlib along."""
    byzfl = pytest.importorskip("byzfl", reason="byzfl is not installed", exc_type=ImportError)
    updates = torch.stack(random(count, count, 1000))
    sent = {f"n{i}": update for i, update in enumerate(updates)}
    middle, mean = (vote(rule, sent, AGREE)[0] for rule in ("median", "mean"))
    assert middle is not None
    assert torch.equal(middle, byzfl.Median()(updates))
    torch.testing.assert_close(mean, byzfl.Average()(updates))


def test_zeros_of_either_sign_are_the_same_replica_and_many_replicas_that_differ_are_all_classes() -> None:
    zeros = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([-0.0, 1.0])}
    assert alike(zeros) == [["a", "b"]]
    late = {f"n{number:03d}": torch.cat([torch.ones(5000), torch.tensor([number % 40.0])]) for number in range(200)}
    assert [len(members) for members in alike(late)] == [5] * 40


@pytest.mark.parametrize("margin", [0.3, 2.0])
def test_a_near_copy_of_one_honest_update_does_no_harm_to_another(margin: float) -> None:
    center = random(0, 1, 4000)[0]
    honest = around(center, 1.5, 1, 2)
    copy = honest[0] + 0.01 * random(2, 1, 4000)[0]
    agreement = Agreement(cosine=0.0, margin=margin)
    verdict = vote("majority", {"a": honest[0], "b": honest[1], "liar": copy}, agreement)[1]
    assert verdict.outvoted == ()
    against = vote("majority", {"a": honest[0], "b": -honest[1], "liar": copy}, agreement)[1]
    assert against.alone is None, "what only a copy says is no strike"


@pytest.mark.parametrize("count", [3, 4, 9])
def test_a_replica_that_overshoots_counts_no_longer_than_the_others(count: int) -> None:
    honest = around(random(0, 1, 4000)[0], 0.5, 1, count)
    updates = {f"n{number}": update for number, update in enumerate(honest)}
    plain, _ = vote("majority", updates, AGREE)
    assert plain is not None
    long, verdict = vote("majority", updates | {"n0": 2.5 * honest[0]}, AGREE)
    assert long is not None
    assert verdict.outcome == "unanimous"
    middle = sorted(norm(update) for update in honest)[count // 2]
    assert norm(long - plain) <= 0.55 * middle / count < 1.5 * norm(honest[0]) / count


PARTS = ((slice(0, 100), slice(3000, 4000)), (slice(100, 3000),))


@pytest.mark.parametrize("count", [3, 4, 9])
def test_a_part_that_overshoots_is_shortened_and_all_else_is_the_plain_mean_bit_for_bit(count: int) -> None:
    honest = around(random(0, 1, 4000)[0], 0.5, 1, count)
    updates = {f"n{number}": update for number, update in enumerate(honest)}
    plain, _ = vote("majority", updates, AGREE)
    same, _ = vote("majority", updates, AGREE, parts=PARTS)
    assert plain is not None and same is not None
    assert torch.equal(plain, same)
    for where in PARTS[0]:
        updates["n0"] = updates["n0"].clone()
        updates["n0"][where] *= 1.9
    cut, verdict = vote("majority", updates, AGREE, parts=PARTS)
    assert cut is not None
    assert verdict.outcome == "unanimous"
    assert torch.equal(cut[PARTS[1][0]], plain[PARTS[1][0]])
    for where in PARTS[0]:
        others = torch.stack([update[where] for name, update in updates.items() if name != "n0"]).sum(0)
        share = norm(cut[where] * count - others) / norm(honest[0][where])
        assert share == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("count", [3, 4, 9])
@pytest.mark.parametrize("factor", [0.1, 4.0])
def test_one_part_far_too_long_or_short_is_outvoted_alone(count: int, factor: float) -> None:
    honest = around(random(0, 1, 4000)[0], 0.5, 1, count)
    updates = {f"n{number}": update for number, update in enumerate(honest)}
    updates["n1"][:100] *= factor  # a fortieth of the block: its whole length stays as it was
    parts = ((slice(0, 100),), (slice(100, 4000),))
    assert vote("majority", updates, AGREE)[1].outcome == "unanimous"
    verdict = vote("majority", updates, AGREE, parts=parts)[1]
    assert (verdict.outvoted, verdict.alone) == (("n1",), "n1")
