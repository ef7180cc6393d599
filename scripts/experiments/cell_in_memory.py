"""Trains one cell in memory, one domain a node: the real model, trainer, votes and jury, but no coordinator or client.

The result of local training is kept under its starting state, so cells with equal votes share it.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clients.attacks.base import Learner, Seen, find_attack
from scripts.experiments.cell import Cell, Result, Round
from scripts.experiments.faults import ABSENT, CLEAN, find_fault
from server.witness import Witness
from strategies.exchange.messages import TrainReply
from strategies.placement.placement import place
from strategies.round.ballots import Ballots
from strategies.round.replay_guard import ReplayGuard
from strategies.round.standings import standings_of
from strategies.voting.block_parts import parts_of
from strategies.voting.vote import Agreement
from strategies.witness.jury import Jury
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks, block_digest, blocks_digest
from trfmoe_core.config import DrillConfig, Recipe, WitnessConfig
from trfmoe_core.data.batches.held_out import EvaluationSet, evaluation_windows
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.data.batches.stream import BatchStream, stream_over
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import ConfigError, WireError
from trfmoe_core.model.transformer import build_model
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.evaluate import evaluate
from trfmoe_core.training.trainer import Trainer

WITNESS_SHARE = 0.4
"""Of the held-out pieces; the others are for evaluation, so no window is in both."""

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
        freeze = recipe.training.freeze
        self.model = build_model(recipe.model, TOKENIZER.padded_vocab_size, recipe.seed, freeze=freeze)
        self.parameters = dict(self.model.named_parameters())
        self.layout = BlockLayout.of(self.parameters)
        self.start = self.layout.gather(self.parameters)
        self.placement = place(self.layout.experts, list(self.domains), trunk=TRUNK in self.layout.specs)
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

    def train(self, cell: Cell) -> Result:
        """Trains all rounds of a cell.

        Raises:
            ConfigError: The cell's fault cannot be played here.
        """
        check_fault(cell.fault)
        started = time.process_time()
        config = self.recipe.witness or WitnessConfig(data=["-"])
        blocks = {name: flat.clone() for name, flat in self.start.items()}
        jury, replays = Jury(config), ReplayGuard()
        drill = find_fault(cell.fault).drill_in(self.recipe.rounds.num_rounds)
        absent = cell.attackers if cell.fault == ABSENT.name else ()
        nodes: dict[str, Trained] = {}
        first: dict[str, Blocks] = {}
        rounds = []
        for number in range(1, self.recipe.rounds.num_rounds + 1):
            digest = blocks_digest(blocks)
            present = [name for name in self.domains if name not in absent]
            nodes = {name: self._train(name, number, blocks, digest, nodes.get(name)) for name in present}
            replicas = {name: node.updates for name, node in nodes.items()}
            honest = [updates for name, updates in replicas.items() if name not in cell.attackers]
            for name in (name for name in cell.attackers if name not in absent):
                first.setdefault(name, replicas[name])
                if drill is not None and drill.active(number):
                    seen = self._seen(drill, number, name, blocks, replicas[name], first[name], honest)
                    play = find_attack(drill.attack).on_updates
                    replicas[name] = play(replicas[name], seen) if play else replicas[name]
            replicas = {name: updates for name, updates in replicas.items() if _is_new(replays, name, number, updates)}
            blocks, found = self._vote(cell.rule, number, blocks, replicas, jury)
            rounds.append(found)
        losses = self.measure(blocks)
        return Result(cell=cell, losses=losses, rounds=rounds, seconds=time.process_time() - started)

    def measure(self, blocks: Blocks) -> dict[str, float]:
        """Returns the held-out loss of each covered domain, nats a token."""
        self.layout.scatter(blocks, self.parameters)
        size = self.recipe.training.batch_size
        return {d.name: evaluate(self.model, d.held_out, size, CPU, torch.float32).loss for d in self.covered}

    def _vote(
        self, rule: str, number: int, blocks: Blocks, replicas: dict[str, Blocks], jury: Jury
    ) -> tuple[Blocks, Round]:
        """Returns the blocks after the round, and what it showed. `graph` and `witness` are both `majority`."""
        agreement = Agreement(cosine=self.recipe.agreement.cosine)
        ballots = Ballots(
            self.placement, "mean" if rule == "mean" else "majority", agreement, parts=parts_of(self.layout)
        )
        for name, updates in replicas.items():
            try:
                ballots.add(name, dict(updates))
            except WireError:
                ballots.reject(name)
        convicted: Collection[str] = ()
        struck: list[str] = []
        if rule == "witness":
            judged = ballots.judge(jury, blocks, self.witness.loss(number))
            convicted, struck = judged.convicted, list(judged.struck.values())
        after, verdicts = dict(blocks), {}
        for block, update, verdict in ballots.decide(lambda block: None, {}):
            verdicts[block] = verdict
            if update is not None:
                after[block] = blocks[block] + update
        standings = standings_of(replicas, verdicts, ballots.voters, convicted)
        outvoted = Counter(name for verdict in verdicts.values() for name in verdict.outvoted)
        blamed = [name for name, standing in standings.items() if standing != "good"]
        return after, Round(lost_blocks=dict(outvoted), blamed=blamed, struck=struck)

    def _seen(
        self,
        drill: DrillConfig,
        number: int,
        name: str,
        blocks: Blocks,
        own: Blocks,
        first: Blocks,
        honest: list[Blocks],
    ) -> Seen:
        """Returns what an attacker knows in a round."""
        learner = None
        if find_attack(drill.attack).needs == "model":
            self.layout.scatter(blocks, self.parameters)
            stream = self._stream(name, None, seed_for(self.recipe.seed, name, drill.attack, str(number)))
            learner = Learner(
                model=self.model, batches=_batches(stream), learning_rate=self.recipe.training.learning_rate
            )
        # The noise of attacks follows from the honest updates, so that it differs from round to round and node to node.
        seed = int(torch.stack([update.sum() for update in own.values()]).sum().abs() * 1e6)
        return Seen(
            drill=drill,
            round=number,
            generator=torch.Generator().manual_seed(seed),
            steps=self.recipe.rounds.steps_in(number),
            first=lambda: first,
            honest=honest,
            learner=learner,
        )

    def _train(self, name: str, number: int, blocks: Blocks, digest: str, before: Trained | None) -> Trained:
        key = hashlib.sha256(f"{name}:{before.key if before else ''}:{digest}".encode()).hexdigest()
        if key not in self._trained:
            rounds = self.recipe.rounds
            self.layout.scatter(blocks, self.parameters)
            trainer = Trainer(self.model, self.recipe.training, self.recipe.total_steps, CPU)
            if before is not None:
                trainer.load_state(before.state)
            trainer.step = rounds.steps_before(number)
            stream = self._stream(name, before.place if before else None)
            trainer.train(stream, rounds.steps_in(number))
            after = self.layout.gather(self.parameters)
            updates = {block: after[block].sub_(blocks[block]) for block in self.placement.held_by(name)}
            state = {entry: value.clone() for entry, value in trainer.state().items()}
            self._trained[key] = Trained(key, updates, state, stream.state())
        return self._trained[key]

    def _stream(self, name: str, place: dict[str, Any] | None, seed: int | None = None) -> BatchStream:
        recipe, train = self.recipe, self.domains[name].train
        if seed is None:
            seed = seed_for(recipe.seed, name)
        return stream_over(train, recipe.model.context, recipe.training.batch_size, seed, place)


def check_fault(name: str) -> None:
    """Makes sure that a fault can be played on updates alone, without a node's client and its messages.

    Raises:
        ConfigError: It cannot, or there is none of this name.
    """
    fault = find_fault(name)
    on_updates = fault.drill is not None and find_attack(fault.drill.attack).on_updates is not None
    if fault not in (CLEAN, ABSENT) and not on_updates:
        raise ConfigError(f"--attacks: {name} needs a node's client and its messages; play it with trfmoe drill")


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


def _batches(stream: BatchStream) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        batch = torch.from_numpy(stream.next())
        yield batch[:, :-1], batch[:, 1:]
