"""A federation in memory for measurements: the real model, trainer, votes and jury, one thread, no network.

Local training is remembered by what it started from, so runs in which the votes came out the same share their work.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.bench.attacks import LIES
from server.witness import Witness
from strategies.ballots import Ballots
from strategies.messages import TrainReply
from strategies.placement import place
from strategies.replay import ReplayGuard
from strategies.seating import standings_of
from strategies.voting import Agreement
from strategies.witness import Jury
from trfmoe_core.blocks import BlockLayout, Blocks, block_digest, blocks_digest
from trfmoe_core.config import Recipe, WitnessConfig
from trfmoe_core.data.batches.held_out import EvaluationSet, evaluation_windows
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.data.batches.stream import BatchStream, stream_over
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import WireError
from trfmoe_core.model.transformer import build_model
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.evaluate import evaluate
from trfmoe_core.training.trainer import Trainer

WITNESS_SHARE = 0.4
"""Of the held-out pieces; the others are for evaluation, so no window is in both."""

ASCENT_STEPS = 8

CPU = torch.device("cpu")
TOKENIZER = load_tokenizer("byte")


@dataclass(frozen=True)
class Domain:
    """One text: what its owners train on, what the coordinator judges by, what the result is measured on."""

    name: str
    train: TokenStore
    witness: TokenStore
    held_out: EvaluationSet

    @classmethod
    def read(cls, path: Path, recipe: Recipe, cache: Path) -> "Domain":
        """Returns the domain of one file."""
        (source,) = prepare_corpus([str(path)], recipe.data, TOKENIZER, cache).sources
        held_out = source.held_out
        middle = int(WITNESS_SHARE * held_out.num_pieces)
        measured = held_out.part(middle, held_out.num_pieces)
        windows = evaluation_windows([measured], [1.0], recipe.model.context, recipe.data.evaluation_tokens)
        return cls(path.stem, source.train, held_out.part(0, middle), windows)


@dataclass(frozen=True)
class Trained:
    """A node after a round of training. `key` says from which weights it came, all rounds long."""

    key: str
    updates: Blocks
    state: dict[str, Tensor]
    place: dict[str, Any]


@dataclass
class Trial:
    """One run: who votes how, who lies how, who is not there, and what came of it."""

    rule: str
    attack: str = "none"
    liars: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    losses: dict[str, float] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)


class Federation:
    """Nodes `n0`, `n1`, ... of which number i owns domain i modulo their number.

    Args:
        recipe: The run.
        domains: All texts.
        count: Number of nodes.
        judged_by: Names of the domains that the witness has text of; those that have an owner when absent.
    """

    def __init__(
        self, recipe: Recipe, domains: Sequence[Domain], count: int, judged_by: Sequence[str] | None = None
    ) -> None:
        self.recipe, self._all, self._judged_by = recipe, domains, judged_by
        self.domains = {f"n{i}": domains[i % len(domains)] for i in range(count)}
        self.model = build_model(recipe.model, TOKENIZER.padded_vocab_size, recipe.seed)
        self.parameters = dict(self.model.named_parameters())
        self.layout = BlockLayout.of(self.parameters)
        self.start = self.layout.gather(self.parameters)
        self.placement = place(self.layout.experts, list(self.domains))
        self._trained: dict[str, Trained] = {}

    @property
    def covered(self) -> list[Domain]:
        """The domains that have an owner."""
        return list({domain.name: domain for domain in self.domains.values()}.values())

    @cached_property
    def witness(self) -> Witness:
        """The witness of all runs."""
        known = self.covered if self._judged_by is None else [d for d in self._all if d.name in self._judged_by]
        return Witness(self.recipe, TOKENIZER.padded_vocab_size, [domain.witness for domain in known], "bench")

    def run(self, trial: Trial, config: WitnessConfig, agreement: Agreement) -> Trial:
        """Runs all rounds, and fills in losses and what happened in each round."""
        blocks = {name: flat.clone() for name, flat in self.start.items()}
        jury, replays = Jury(config), ReplayGuard()
        nodes: dict[str, Trained] = {}
        first: dict[str, Blocks] = {}
        for number in range(1, self.recipe.rounds.num_rounds + 1):
            digest = blocks_digest(blocks)
            present = [name for name in self.domains if name not in trial.absent]
            nodes = {name: self._train(name, number, blocks, digest, nodes.get(name)) for name in present}
            replicas = {name: node.updates for name, node in nodes.items()}
            honest = {name: updates for name, updates in replicas.items() if name not in trial.liars}
            for liar in trial.liars:
                first.setdefault(liar, replicas[liar])
                if trial.attack == "late_sign" and 2 * number <= self.recipe.rounds.num_rounds:
                    continue
                if trial.attack == "ascent":
                    replicas[liar] = self._ascent(liar, number, blocks, replicas[liar])
                else:
                    replicas[liar] = LIES[trial.attack](replicas[liar], honest, first[liar])
            replicas = {name: updates for name, updates in replicas.items() if _is_new(replays, name, number, updates)}
            blocks, notes = self._vote(trial.rule, number, blocks, replicas, jury, agreement)
            trial.rounds.append(notes)
        trial.losses = self.measure(blocks)
        return trial

    def measure(self, blocks: Blocks) -> dict[str, float]:
        """Returns the held-out loss of each covered domain, nats a token."""
        self.layout.scatter(blocks, self.parameters)
        size = self.recipe.training.batch_size
        return {d.name: evaluate(self.model, d.held_out, size, CPU, torch.float32).loss for d in self.covered}

    def _vote(
        self,
        rule: str,
        number: int,
        blocks: Blocks,
        replicas: dict[str, Blocks],
        jury: Jury,
        agreement: Agreement,
    ) -> tuple[Blocks, dict[str, Any]]:
        """Returns the blocks after the round, and who lost what in it. `graph` and `witness` are both `majority`."""
        ballots = Ballots(self.placement, "mean" if rule == "mean" else "majority", agreement)
        for name, updates in replicas.items():
            try:
                ballots.add(name, dict(updates))
            except WireError:
                ballots.reject(name)
        notes: dict[str, Any] = {}
        if rule == "witness":
            found = ballots.judge(jury, blocks, self.witness.loss(number))
            notes = {key: getattr(found, key) for key in _NOTED}
        after, verdicts = dict(blocks), {}
        for block, update, verdict in ballots.decide(lambda block: None, {}):
            verdicts[block] = verdict
            if update is not None:
                after[block] = blocks[block] + update
        standings = standings_of(replicas, verdicts, ballots.voters, notes.get("convicted", ()))
        outvoted = Counter(name for verdict in verdicts.values() for name in verdict.outvoted)
        bad = [name for name, standing in standings.items() if standing != "good"]
        return after, notes | {"bad": bad, "outvoted": dict(outvoted)}

    def _train(self, name: str, number: int, blocks: Blocks, digest: str, before: Trained | None) -> Trained:
        key = hashlib.sha256(f"{name}:{before.key if before else ''}:{digest}".encode()).hexdigest()
        if key not in self._trained:
            steps = self.recipe.rounds.local_steps
            self.layout.scatter(blocks, self.parameters)
            trainer = Trainer(self.model, self.recipe.training, self.recipe.total_steps, CPU)
            if before is not None:
                trainer.load_state(before.state)
            trainer.step = (number - 1) * steps
            stream = self._stream(name, before.place if before else None)
            trainer.train(stream, steps)
            after = self.layout.gather(self.parameters)
            updates = {block: after[block].sub_(blocks[block]) for block in self.placement.held_by(name)}
            state = {entry: value.clone() for entry, value in trainer.state().items()}
            self._trained[key] = Trained(key, updates, state, stream.state())
        return self._trained[key]

    def _ascent(self, name: str, number: int, blocks: Blocks, own: Blocks) -> Blocks:
        """Returns a few steps up the loss on the node's own data, as long as its honest update."""
        self.layout.scatter(blocks, self.parameters)
        optimizer = torch.optim.Adam(self.parameters.values(), lr=self.recipe.training.learning_rate, maximize=True)
        stream = self._stream(name, None, seed_for(self.recipe.seed, name, "ascent", str(number)))
        for _ in range(ASCENT_STEPS):
            batch = torch.from_numpy(stream.next())
            self.model(batch[:, :-1], batch[:, 1:]).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        after = self.layout.gather(self.parameters)
        update = {block: after[block].sub_(blocks[block]) for block in own}
        scale = _length(own) / _length(update)
        return {block: flat.mul_(scale) for block, flat in update.items()}

    def _stream(self, name: str, place: dict[str, Any] | None, seed: int | None = None) -> BatchStream:
        recipe, train = self.recipe, self.domains[name].train
        if seed is None:
            seed = seed_for(recipe.seed, name)
        return stream_over(train, recipe.model.context, recipe.training.batch_size, seed, place)


def _is_new(replays: ReplayGuard, name: str, number: int, updates: Blocks) -> bool:
    """Returns whether the run would take a node's reply, or drop it as a replay."""
    if not all(bool(update.isfinite().all()) for update in updates.values()):
        return True  # the vote says so
    entries = [{"block": block, "sha256": block_digest(update)} for block, update in updates.items()]
    index = json.dumps({"entries": entries})
    reply = TrainReply(run_id="bench", round=number, epoch=0, base_digest="0" * 64, name=name, index=index)
    try:
        replays.check(name, reply, updates)
    except WireError:
        return False
    replays.remember(name, reply, updates)
    return True


_NOTED = ("convicted", "gain", "scores", "t", "struck", "asked")


def _length(blocks: Blocks) -> float:
    return float(torch.stack([flat.norm() for flat in blocks.values()]).norm())
