"""What every node gave to a run and what of it counted, so that nobody is dropped in silence.

A vote is one block in one round. A node's planned votes are the blocks that the placement gave it. Once a node was
given blocks they stay planned to the end of the run, also when the coordinator gives them to others because the node
was silent or stood alone: the ledger then shows what its owner lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from server.run_folder.history import RunHistory

UNCOUNTED = ("outvoted", "missing", "invalid")
WITHOUT_RESULT = "kept"
"""Outcome of a vote after which the block stays as it was, so nobody's update counted."""


@dataclass(kw_only=True)
class Account:
    """One node's part in a run.

    Attributes:
        tokens: Tokens that it trained in replies that were accepted.
        planned: Votes that the placement gave it.
        counted: Votes of its that became part of the model.
        outvoted: Votes that it lost.
        missing: Votes for which nothing of it came in time.
        invalid: Votes for which what it sent was refused.
        kept: Votes of its that had no result, because too few replicas agreed or came.
        rounds: Round -> share of its planned votes that counted.
    """

    tokens: int = 0
    planned: int = 0
    counted: int = 0
    outvoted: int = 0
    missing: int = 0
    invalid: int = 0
    kept: int = 0
    rounds: dict[int, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of its planned votes that counted; 1 if none were planned."""
        return self.counted / self.planned if self.planned else 1.0


def ledger(history: RunHistory) -> dict[str, Account]:
    """Returns every node's account over the committed rounds of a federation, in the order of their names."""
    accounts: dict[str, Account] = {}
    given: dict[str, int] = {}
    for number in sorted(history.committed):
        given.update(_loads(history.holders(number)))
        counts = _counts(history, number, given)
        for name, planned in given.items():
            account = accounts.setdefault(name, Account())
            reply = history.replies.get(number, {}).get(name, {})
            if reply.get("status") == "accepted":
                account.tokens += int(reply.get("tokens") or 0)
            found = counts[name]
            account.planned += planned
            account.counted += found["counted"]
            account.outvoted += found["outvoted"]
            account.invalid += found["invalid"]
            account.kept += found["kept"]
            # What no verdict tells of was planned and not asked for: the node sat out, or its blocks went to others.
            account.missing += planned - sum(found[kind] for kind in ("counted", "outvoted", "invalid", "kept"))
            account.rounds[number] = found["counted"] / planned
    return dict(sorted(accounts.items()))


def below(accounts: dict[str, Account], share: float) -> dict[str, Account]:
    """Returns the accounts of the nodes of whose planned votes less than a share counted."""
    return {name: account for name, account in accounts.items() if account.planned and account.share < share}


def complaint(name: str, account: Account) -> str:
    """Returns one sentence about a node whose part fell short, with the reasons in order of weight."""
    reasons = {kind: getattr(account, kind) for kind in (*UNCOUNTED, WITHOUT_RESULT)}
    words = {"missing": "did not come in time", "outvoted": "were outvoted", "invalid": "were refused"}
    parts = [
        f"{count:,} {words.get(kind, 'had no result')}"
        for kind, count in sorted(reasons.items(), key=lambda item: -item[1])
        if count
    ]
    return (
        f"{name}: {100 * account.share:.0f} % of its planned votes counted ({account.counted:,} of "
        f"{account.planned:,}); {', '.join(parts)}"
    )


def _loads(holders: dict[str, list[str]]) -> dict[str, int]:
    loads: dict[str, int] = {}
    for names in holders.values():
        for name in names:
            loads[name] = loads.get(name, 0) + 1
    return loads


def _counts(history: RunHistory, number: int, names: Iterable[str]) -> dict[str, dict[str, int]]:
    counts = {name: dict.fromkeys(("counted", "outvoted", "invalid", "kept"), 0) for name in names}
    holders = history.holders(number)
    for verdict in history.verdicts.get(number, []):
        for name in holders.get(verdict["block"], []):
            if kind := _part(verdict, name):
                counts[name][kind] += 1
    return counts


def _part(verdict: dict[str, Any], name: str) -> str | None:
    """Returns what became of a holder's vote on one block; None if nothing came."""
    for kind in UNCOUNTED:
        if name in verdict.get(kind, []):
            return None if kind == "missing" else kind
    if verdict["outcome"] == WITHOUT_RESULT:
        return WITHOUT_RESULT
    return "counted" if name in verdict.get("accepted", []) else None
