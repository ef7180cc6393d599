"""The events of a journal, arranged by node and round. The console, the report and the outcome read them here."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from server.run_folder.journal import Event
from server.run_folder.journal_entries import complete_entries
from strategies.membership.little_text import little_text
from strategies.round.best_round import FEWEST, BestRound


class RunHistory:
    """The state of a run after the events that `feed` was given. A round repeated after a crash counts once."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.started: Event = {}
        self.starts: list[Event] = []
        self.finished: Event | None = None
        self.nodes: dict[str, Event] = {}
        self.refused: dict[str, str] = {}
        self.placements: list[Event] = []
        self.replies: dict[int, dict[str, Event]] = {}
        self.verdicts: dict[int, list[dict[str, Any]]] = {}
        self.committed: dict[int, Event] = {}
        self.evaluated: dict[int, Event] = {}
        self.epochs: dict[int, int] = {}
        """Round -> epoch of the placement by which it was planned."""
        self.planned_at: dict[int, float] = {}
        """Round -> when it was planned last, in seconds since 1970."""
        self.last_time: float | None = None
        """When the newest event happened, in seconds since 1970."""
        self.samples: list[Event] = []
        self.warnings: list[str] = []
        self._readers: dict[str, Callable[[Event], object]] = {
            "run_started": self._run_started,
            "run_finished": self._run_finished,
            "node_joined": lambda event: self.nodes.update({event["node"]: event}),
            "node_refused": lambda event: self.refused.update({event["node"]: event["reason"]}),
            "placement": self.placements.append,
            "round_planned": self._round_planned,
            "node_reply": self._node_reply,
            "verdicts": lambda event: self.verdicts.update({event["round"]: event["verdicts"]}),
            "round_committed": lambda event: self.committed.update({event["round"]: event}),
            "evaluated": lambda event: self.evaluated.update({event["round"]: event}),
            "sample": self.samples.append,
            "warning": lambda event: self.warnings.append(str(event.get("text", ""))),
            "node_suspect": lambda event: self.warnings.append(suspicion(event)),
            "node_quarantined": lambda event: self.warnings.append(suspicion(event)),
            "recipe_changed": lambda event: self.warnings.append(str(event.get("text", ""))),
        }
        for event in events:
            self.feed(event)

    def feed(self, event: Event) -> None:
        """Takes in the next event; kinds that are not known here are passed over.

        Raises:
            RunFolderError: the event lacks what its kind has.
        """
        with complete_entries(f"entry {event.get('seq')} of the journal"):
            self.last_time = event.get("time", self.last_time)
            if reader := self._readers.get(event["event"]):
                reader(event)

    @property
    def num_rounds(self) -> int:
        """Rounds that the run is to have."""
        return int(self.started.get("num_rounds") or 0)

    @property
    def min_share(self) -> float:
        """Share of a node's planned votes that must have counted (`fairness.min_share` of the recipe)."""
        return float(self.started.get("min_share", 0.5))

    @property
    def unit(self) -> str:
        """The unit of progress: rounds of a federation, or steps where one machine trains alone."""
        return "step" if self.started.get("mode") == "local" else "round"

    @property
    def bits_per_byte(self) -> list[float | None]:
        """Held-out bits per byte after every round from 0 (the untrained model) on; None where not measured.

        The values of several nodes are combined by `strategies.round.best_round.robust`. A run on one machine has only
        the steps that were measured.
        """
        if self.unit == "step":
            return [self.evaluated[number]["bits_per_byte"] for number in sorted(self.evaluated)]
        last = max(self.evaluated, default=-1)
        return [self.evaluated.get(number, {}).get("bits_per_byte") for number in range(last + 1)]

    @property
    @complete_entries("an entry of the journal about a round")
    def best_round(self) -> int | None:
        """The best round by `strategies.round.best_round`, else the newest; of a federation, only trained rounds."""
        steps = self.unit == "step"
        return self.best_among(self.evaluated if steps else [n for n in {*self.evaluated, *self.committed} if n > 0])

    @complete_entries("an entry of the journal about an evaluation")
    def best_among(self, rounds: Iterable[int]) -> int | None:
        """Returns the best of some rounds, else the newest of them; None when there are none.

        Raises:
            RunFolderError: an evaluation lacks what it has.
        """
        rounds = set(rounds)
        # Where one machine trains alone, what it measures itself is all there is, and can be trusted.
        best = BestRound(fewest=1 if self.unit == "step" else FEWEST)
        for number in sorted(self.evaluated):
            nodes = self.evaluated[number].get("nodes", {})
            # The journal has null for what was not finite.
            bits = {name: inf if (found := node["bits_per_byte"]) is None else found for name, node in nodes.items()}
            best.tell(number, bits, number in rounds)
        return max(rounds, default=None) if best.round is None else best.round

    def expert_share(self, round_number: int) -> list[list[float]]:
        """Returns, by layer and expert, the share of a layer's token slots, the mean over the nodes; empty if unknown.

        A reply whose layers or experts are not those of the others is left out.
        """
        shares = [
            reply["expert_share"] for reply in self.replies.get(round_number, {}).values() if reply.get("expert_share")
        ]
        if not shares:
            return []
        shape = [len(row) for row in shares[0]]
        alike = [share for share in shares if [len(row) for row in share] == shape]
        return [
            [sum(share[layer][expert] for share in alike) / len(alike) for expert in range(width)]
            for layer, width in enumerate(shape)
        ]

    def dead_experts(self, round_number: int) -> list[str]:
        """Returns the experts that received no token on any node in a round's training."""
        shares = [
            reply["expert_share"] for reply in self.replies.get(round_number, {}).values() if reply.get("expert_share")
        ]
        return [
            f"layers.{layer}.experts.{expert}"
            for layer, row in enumerate(shares[0] if shares else [])
            for expert in range(len(row))
            if not any(share[layer][expert] for share in shares)
        ]

    def outvoted(self, round_number: int) -> dict[str, int]:
        """Returns how many blocks each outvoted node lost the vote on in a round."""
        counts: dict[str, int] = {}
        for verdict in self.verdicts.get(round_number, []):
            for name in verdict.get("outvoted", []):
                counts[name] = counts.get(name, 0) + 1
        return counts

    def outvoted_rounds(self) -> dict[str, list[int]]:
        """Returns the committed rounds in which a node was outvoted on at least one block, for the nodes that were."""
        rounds: dict[str, list[int]] = {}
        for number in sorted(self.committed):
            for name in self.outvoted(number):
                rounds.setdefault(name, []).append(number)
        return dict(sorted(rounds.items()))

    def little_text(self) -> dict[str, str]:
        """Returns, for nodes that were outvoted without a drill and have little text, a sentence that says so."""
        train_tokens = {name: int(event.get("train_tokens") or 0) for name, event in self.nodes.items()}
        told = self.drill_rounds()
        found = {}
        for name, rounds in self.outvoted_rounds().items():
            honest = [number for number in rounds if number not in told.get(name, ())]
            tokens = [int(self.replies.get(number, {}).get(name, {}).get("tokens") or 0) for number in honest]
            if honest and (text := little_text(name, train_tokens, max(tokens))):
                found[name] = text
        return found

    def drill_rounds(self) -> dict[str, list[int]]:
        """Returns the committed rounds in which a node played a fault on purpose, for the nodes that did."""
        rounds: dict[str, list[int]] = {}
        for number in sorted(self.committed):
            for name, reply in self.replies.get(number, {}).items():
                if reply.get("drill"):
                    rounds.setdefault(name, []).append(number)
        return dict(sorted(rounds.items()))

    def claims(self) -> dict[str, list[int]]:
        """Returns the rounds in which a node called its update a drill that the recipe does not have."""
        rounds: dict[str, list[int]] = {}
        for number, replies in sorted(self.replies.items()):
            for name, reply in replies.items():
                if reply.get("claims_drill"):
                    rounds.setdefault(name, []).append(number)
        return dict(sorted(rounds.items()))

    def _round_planned(self, event: Event) -> None:
        number = event["round"]
        self.replies[number] = {}
        self.epochs[number] = event["epoch"]
        if "time" in event:
            self.planned_at[number] = event["time"]

    def holders(self, round_number: int) -> dict[str, list[str]]:
        """Returns block -> nodes by the placement of a round; empty if it is not known."""
        epoch = self.epochs.get(round_number)
        found = next((plan for plan in reversed(self.placements) if plan["epoch"] == epoch), None)
        return found.get("holders", {}) if found else {}

    def _node_reply(self, event: Event) -> None:
        replies = self.replies.setdefault(event["round"], {})
        # An accepted reply stays accepted, even if the same node's later evaluation fails.
        if replies.get(event["node"], {}).get("status") != "accepted":
            replies[event["node"]] = event

    def _run_started(self, event: Event) -> None:
        self.started = event
        self.starts.append(event)
        self.finished = None

    def _run_finished(self, event: Event) -> None:
        self.finished = event


def suspicion(event: Event) -> str:
    """Returns in words what a `node_suspect` or `node_quarantined` event says."""
    until = event.get("until_round")
    rest = "" if until is None else f"; it sits out until round {until}"
    return f"round {event['round']}: {event['reason']}{rest}"
