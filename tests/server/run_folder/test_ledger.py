"""The ledger counts every planned vote once, and forgets nobody who was dropped."""

from typing import Any

from server.run_folder.history import RunHistory
from server.run_folder.ledger import below, complaint, ledger
from tests.scripts.journal import events


def planned(number: int, holders: dict[str, list[str]], epoch: int) -> list[dict[str, Any]]:
    return [
        {"event": "placement", "epoch": epoch, "reason": "start", "holders": holders},
        {"event": "round_planned", "round": number, "epoch": epoch, "base_digest": "d"},
    ]


def verdict(block: str, outcome: str, **names: list[str]) -> dict[str, Any]:
    return {"block": block, "outcome": outcome, **{k: names.get(k, []) for k in PARTS}}


PARTS = ("accepted", "outvoted", "missing", "invalid")


def committed(number: int, *verdicts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"event": "verdicts", "round": number, "verdicts": list(verdicts)},
        {"event": "round_committed", "round": number, "digest": "d"},
    ]


def test_a_liar_loses_the_votes_in_which_it_stood_alone() -> None:
    accounts = ledger(RunHistory(events(rounds=4, lie_from=2)))
    assert [account.share for account in accounts.values()] == [1.0, 1.0, 0.25]
    carol = accounts["carol"]
    assert (carol.planned, carol.counted, carol.outvoted, carol.missing) == (8, 2, 6, 0)
    assert carol.rounds == {1: 1.0, 2: 0.0, 3: 0.0, 4: 0.0}
    short = below(accounts, 0.5)
    assert list(short) == ["carol"]
    assert complaint("carol", carol) == "carol: 25 % of its planned votes counted (2 of 8); 6 were outvoted"


def test_every_planned_vote_has_one_fate() -> None:
    names = ["a", "b", "c"]
    blocks = {f"layers.0.experts.{e}": names for e in range(5)}
    verdicts = [
        verdict("layers.0.experts.0", "unanimous", accepted=names),
        verdict("layers.0.experts.1", "majority", accepted=["a", "b"], outvoted=["c"]),
        verdict("layers.0.experts.2", "majority", accepted=["a", "b"], missing=["c"]),
        verdict("layers.0.experts.3", "majority", accepted=["a", "b"], invalid=["c"]),
        verdict("layers.0.experts.4", "kept"),
    ]
    reply = {"event": "node_reply", "round": 1, "node": "c", "status": "accepted", "tokens": 70}
    history = RunHistory([*planned(1, blocks, 1), reply, *committed(1, *verdicts)])
    c = ledger(history)["c"]
    assert (c.planned, c.counted, c.outvoted, c.missing, c.invalid, c.kept) == (5, 1, 1, 1, 1, 1)
    assert c.tokens == 70 and c.share == 0.2


def test_who_lost_its_blocks_keeps_its_plan() -> None:
    before, after = {"x": ["a", "b", "c"]}, {"x": ["a", "b", "d"]}
    history = RunHistory(
        [
            *planned(1, before, 1),
            *committed(1, verdict("x", "majority", accepted=["a", "b"], missing=["c"])),
            *planned(2, after, 2),
            *committed(2, verdict("x", "unanimous", accepted=["a", "b", "d"])),
        ]
    )
    accounts = ledger(history)
    assert (accounts["c"].planned, accounts["c"].missing, accounts["c"].share) == (2, 2, 0.0)
    assert (accounts["d"].planned, accounts["d"].share) == (1, 1.0)
