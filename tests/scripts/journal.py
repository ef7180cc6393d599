"""A synthetic journal of a small federation in which carol lies from round 2 on."""

import json
from pathlib import Path
from typing import Any

NODES = ("alice", "bob", "carol")


def events(rounds: int = 3, lie_from: int = 2, finished: bool = True) -> list[dict[str, Any]]:
    """Returns the events of such a run."""
    made: list[dict[str, Any]] = []

    def add(kind: str, **fields: Any) -> None:
        made.append({"seq": len(made), "time": 1000.0 + len(made), "event": kind, **fields, "prev": "0" * 64})

    add(
        *("run_started",),
        run_id="abc",
        name="demo",
        mode="federated",
        vote="majority",
        num_rounds=rounds,
        resumed_from=None,
        versions={"torch": "2"},
        recipe_hash="r",
        code_fingerprint="c",
    )
    for number, name in enumerate(NODES):
        bits = {"bigram_bits_per_byte": 3.5 + number / 10}
        add("node_joined", node=name, device="cpu", train_tokens=1000, held_out_tokens=100, files={"ok": 2}, **bits)
    holders = {f"layers.0.experts.{e}": list(NODES) for e in range(2)}
    add("placement", epoch=1, reason="start", load_min=2, load_max=2, replication=3, pair_max=2, holders=holders)
    for number in range(1, rounds + 1):
        lies = number >= lie_from
        add("round_planned", round=number, epoch=1, base_digest="d")
        for name in NODES:
            shares = {"expert_share": [[0.75, 0.25], [1.0, 0.0]], "drill": lies and name == "carol"}
            add("node_reply", round=number, node=name, status="accepted", reason=None, loss=5.0 - number, **shares)
        add("evaluated", **evaluation(number - 1))
        verdict = {"accepted": ["alice", "bob"], "outvoted": ["carol"], "missing": [], "invalid": []}
        if not lies:
            verdict = {"accepted": list(NODES), "outvoted": [], "missing": [], "invalid": []}
        outcome = "majority" if lies else "unanimous"
        blocks = [*holders, "trunk"]
        add("verdicts", round=number, verdicts=[{"block": block, "outcome": outcome, **verdict} for block in blocks])
        add(
            *("round_committed",),
            round=number,
            digest=f"digest-{number}",
            train_loss=5.0 - number,
            seconds=2.0,
            train_share=0.9,
            bytes_down=3_000_000,
            bytes_up=2_000_000,
            tokens=9000,
            tokens_per_s=4500.0,
            outcomes={outcome: 3},
            outvoted={"carol": 3} if lies else {},
        )
    if finished:
        add("evaluated", **evaluation(rounds))
        add(
            "run_finished",
            outcome="completed",
            reason=None,
            rounds=rounds,
            digest=f"digest-{rounds}",
            best_round=rounds,
        )
    return made


def evaluation(number: int) -> dict[str, Any]:
    """Returns the fields of the evaluation of a round's model."""
    bits = {name: {"loss": 4.0, "bits_per_byte": 8.0 - 2 * number + index / 100} for index, name in enumerate(NODES)}
    return {
        "round": number,
        "loss": 4.0,
        "bits_per_byte": 8.01 - 2 * number,
        "perplexity": 54.598,
        "nodes": bits,
        "best": True,
    }


def write_journal(folder: Path, made: list[dict[str, Any]]) -> None:
    """Writes events as a run folder's journal."""
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in made))
