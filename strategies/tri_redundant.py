"""Tri-redundant federated training: every expert on three nodes, a vote over their updates, one commit a round.

DiLoCo's round (arXiv 2311.08105: broadcast, local steps, outer step) over the blocks of a mixture of experts, with the
mean replaced by a vote. Unlike Flower's own loop it resumes, has a deadline for everything, and no reply can end it.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies.exchange.arrays import from_arrays, to_arrays
from strategies.exchange.boundary import boundary
from strategies.exchange.in_flight import Clock
from strategies.exchange.last_sent import LastSent
from strategies.exchange.messages import DescribeRequest, TrainReply
from strategies.membership.little_text import little_text
from strategies.membership.members import PREPARING_PATIENCE, Federation
from strategies.membership.seats import Seats
from strategies.outer.optimizer import outer_optimizer
from strategies.parts import check_parts
from strategies.round.ballots import Ballots, measured
from strategies.round.certified_size import CertifiedSize
from strategies.round.delivery import Delivery
from strategies.round.disputes import Disputes
from strategies.round.evaluations import Evaluations
from strategies.round.momentum_vote import MomentumVote
from strategies.round.pace import Pace, patience
from strategies.round.recorder import Recorder
from strategies.round.replay_guard import ReplayGuard
from strategies.round.replica_files import ReplicaFiles
from strategies.round.replies import CheckedReply, check_reply, relocated
from strategies.round.standings import lost_experts, standings_of
from strategies.round.summary import planned_drill, reply_fields, round_summary, verdict_fields
from strategies.voting.block_parts import parts_of
from strategies.voting.kernels import norm
from strategies.voting.vote import Agreement, Verdict
from strategies.witness.jury import Jury
from strategies.witness.loss_increase import Loss, mean
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError, WireError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.malloc import trim
from trfmoe_core.model.frozen import FrozenPart
from trfmoe_core.training.shared_momentum import PREFIX, split_momentum

_SENT = "sent."
_KEPT = (_SENT, PREFIX)
"""Prefixes of tensors of a commit that are not the outer optimizer's."""

BARREN_ROUNDS = 3
"""After this many rounds in a row without any usable reply, the run ends."""


def agreement_of(recipe: Recipe) -> Agreement:
    """Returns when replicas agree. Honest updates of Muon never oppose each other; those of AdamW may."""
    agreement = Agreement(**recipe.agreement.model_dump())
    if agreement.pooled_cosine is None and recipe.training.optimizer == "muon":
        return replace(agreement, pooled_cosine=0.0)
    return agreement


class TriRedundant(Strategy):
    """Runs the rounds of one federation.

    Args:
        recipe: The run.
        layout: The model's blocks.
        run_id: The run's own name for itself, the same after a resume; nodes keep their state under it.
        tokenizer_fingerprint: What every node's tokenizer must match.
        recorder: Takes events and commits.
        spill_folder: Where replicas wait for their vote.
        frozen: The weights that are never trained, if there are any. They are in no block.
        state: What an earlier `commit` of this run was given, to go on from there.
        tensors: The tensors besides the blocks of that commit.
        witness: Round -> the loss of blocks on its windows of the witness text; None: replicas judge each other.
        clock: Time; tests put in their own.
        stopping: Asked before each round; True ends the run with the rounds that it has.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        layout: BlockLayout,
        run_id: str,
        tokenizer_fingerprint: str,
        recorder: Recorder,
        spill_folder: Path,
        frozen: FrozenPart | None = None,
        state: dict[str, Any] | None = None,
        tensors: Blocks | None = None,
        witness: Callable[[int], Loss] | None = None,
        clock: Clock | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        check_parts(recipe)
        self.recipe = recipe
        self.layout = layout
        self.run_id = run_id
        self.recorder = recorder
        self.clock = clock or Clock()
        self._stopping = stopping
        tensors = tensors or {}
        self.outer = outer_optimizer(recipe.outer, {k: v for k, v in tensors.items() if not k.startswith(_KEPT)})
        sent = {name.removeprefix(_SENT): values for name, values in tensors.items() if name.startswith(_SENT)}
        self.last_sent = LastSent(recipe.transport.broadcast, sent) if recipe.transport.difference else None
        self.agreement = agreement_of(recipe)
        request = DescribeRequest(
            run_id=run_id,
            recipe=recipe.for_nodes().model_dump(mode="json"),
            code_fingerprint=code_fingerprint(),
            tokenizer_fingerprint=tokenizer_fingerprint,
        )
        state = state or {}
        seats = state.get("seating")
        names = seats["nodes"] if seats else ()
        self.federation = Federation(request, recorder.record, self.clock, names, state.get("registered", ()))
        self._partial = recipe.experts.unheld == "absent"
        floor = recipe.model.top_k if self._partial else 0
        trunk, replication = TRUNK in layout.specs, recipe.experts.replication
        self.seats = Seats(layout.experts, recipe.reputation, recorder.record, seats, floor, replication, trunk)
        self.pace = Pace(recipe.rounds.patience, self.clock)
        self.delivery = Delivery(
            request,
            recipe,
            layout,
            self.federation,
            self.seats,
            self.last_sent,
            recorder,
            self.clock,
            self.pace,
            frozen,
        )
        self.federation.owes = self.delivery.owes
        layout_sent, voted = self.delivery.wire_layout, split_momentum(tensors)[1]
        self.momentum = MomentumVote(recipe, layout_sent, self.agreement, voted)
        self.replica_files = ReplicaFiles(spill_folder)
        self.replays = ReplayGuard(state.get("replays"))
        # The plain mean is there to show what a lie does.
        self.certified_size = CertifiedSize(recipe, layout) if recipe.vote != "mean" or recipe.witness else None
        self.witness = witness
        self.jury = Jury(recipe.witness) if recipe.witness and witness else None
        self.round: int = state.get("round", 0)
        self.evaluations = Evaluations(recorder.record, self._partial, state.get("best"))
        self.disputes = Disputes(state.get("disputes"))
        self._norms: dict[str, float] = state.get("norms", {})
        self._unverified: dict[str, bool] = state.get("unverified", {})
        self.blocks: Blocks = {}
        self._barren = 0
        self._explained: set[str] = set()
        self._ballots = Ballots(None, recipe.vote, self.agreement)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Runs the rounds after the last committed one, and returns the final blocks as `to_arrays` gives them.

        Args:
            grid: Flower's way to the nodes.
            initial_arrays: The blocks to start from, by `to_arrays`.
            num_rounds: Number of the last round.
            timeout: Seconds to wait for the replies of a round.
            train_config: Not used; what nodes need stands in the recipe.
            evaluate_config: Not used.
            evaluate_fn: Called with the round and its blocks after each commit, if given.

        Raises:
            RunError: too few nodes can take part, or none delivers anything that counts.
        """
        result = Result()
        self.blocks = from_arrays(initial_arrays, self.layout)
        del initial_arrays  # so that the model is not in memory twice, if the caller keeps no reference
        self.summary()
        rounds = self.recipe.rounds
        replication = self.recipe.experts.replication
        given = rounds.preparing_deadline_s or rounds.reply_deadline_s
        patience_of_start = PREPARING_PATIENCE if given is None else math.inf
        self.federation.gather(
            grid, self.recipe.federation_size, replication, rounds.nodes_deadline_s, given or timeout, patience_of_start
        )
        self.seats.open(self.federation.members)
        if self._partial:
            whole = f"{'the witness measures' if self.witness else 'a witness would measure'} the whole model"
            self.recorder.record(
                "warning",
                text="experts.unheld: absent, so every held-out loss is that of the model with only the experts that "
                f"the node holds; {whole}",
            )
        config = ConfigRecord()
        for number in range(self.round + 1, num_rounds + 1):
            if self._stopping():
                break
            self.federation.await_seated(grid, self.seats.placement.nodes, rounds.nodes_deadline_s)
            self.seats.update(number, self.federation.online)
            messages = self.configure_train(
                number, self.delivery.encode(self.blocks, self.momentum.voted), config, grid
            )
            enough = self.federation.meanwhile(grid, patience(self.pace, rounds, self._ballots, self.recipe.quorum))
            replies = self.delivery.collect(grid, messages, number, timeout, enough, self._ballots.reject)
            _, metrics = self.aggregate_train(number, replies)
            if metrics is not None:
                result.train_metrics_clientapp[number] = metrics
            if self._barren >= BARREN_ROUNDS:
                raise RunError(self._why_barren())
            if evaluate_fn and (measured := evaluate_fn(number, to_arrays(self.blocks))) is not None:
                result.evaluate_metrics_serverapp[number] = measured
        self.federation.refresh(grid)
        messages = self.configure_evaluate(self.round, self.delivery.encode(self.blocks), config, grid)
        # No training round has this number, so a reply to the last round's training counts as late.
        replies = self.delivery.collect(grid, messages, self.round + 1, timeout, patience(self.pace, rounds))
        final = self.aggregate_evaluate(self.round, replies)
        if final is not None:
            result.evaluate_metrics_clientapp[self.round] = final
        if self._barren:
            raise RunError(self._why_barren())
        result.arrays = to_arrays(self.blocks)
        return result

    def summary(self) -> None:
        """Logs the settings that decide what a vote does."""
        rules = f"{self.recipe.vote}, on the trunk {self.recipe.rule_of_trunk}"
        log(INFO, "TriRedundant: vote %s, agreement %s, outer %s", rules, self.agreement, self.recipe.outer)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Returns a training request for each node that is online and idle.

        Args:
            server_round: The round.
            arrays: The broadcast's buffers, which all messages share.
            config: Not used; Flower's interface has it.
            grid: Flower's way to the nodes.
        """
        placement = self.seats.placement
        self.replica_files.clear()
        parts = parts_of(self.layout)
        self._ballots = Ballots(
            placement,
            self.recipe.vote,
            self.agreement,
            self.recipe.rule_of_trunk,
            parts,
            self.disputes,
            self.recipe.rounds.num_rounds - server_round,
        )
        digest = self.delivery.sent.base_digest
        self.recorder.record("round_planned", round=server_round, epoch=placement.epoch, base_digest=digest)
        return self.delivery.messages(grid, "train", server_round, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Votes on every block, takes the outer step and commits. Bad replies are dropped and recorded."""
        started = self.clock.now()
        good: dict[str, TrainReply] = {}
        bytes_up = 0
        for message in replies:
            trim()  # Frees what the last reply left.
            name = self.delivery.sender(message)
            try:
                with boundary():
                    checked = self._take(message, name)
            except WireError as error:
                self._ballots.reject(name)
                self.delivery.dropped(name, str(error))
                continue
            good[name] = checked.reply.in_short()
            self.delivery.remember_model(name, checked.reply.base_digest)
            bytes_up += checked.num_bytes
            drill = planned_drill(self.recipe, name, server_round)
            fields = reply_fields(checked.reply, drill, self.delivery.bytes_down(name), checked.num_bytes)
            self.recorder.record("node_reply", round=server_round, node=name, **fields)
        self.evaluations.take(server_round - 1, good)
        self.disputes.measure({name: reply.evaluation.loss for name, reply in good.items() if reply.evaluation})
        convicted, struck = self._judge(server_round)
        verdicts = self._decide()
        self.delivery.remember_verdicts(server_round, verdicts.values())
        for text in self.momentum.decide(self.seats.placement, verdicts):
            self.recorder.record("warning", round=server_round, text=f"round {server_round}: {text}")
        self._explain(server_round, verdicts, good)
        if self._partial and self.witness is not None:
            losses = self.witness(server_round)(self.blocks)
            windows = sum(part.numel() for part in losses)
            self.recorder.record("witnessed", round=server_round, loss=mean(losses), windows=windows)
        seated = self.seats.placement.nodes
        standings = standings_of(seated, verdicts, good, convicted, self.pace.late(seated))
        self.seats.observe(standings, lost_experts(verdicts, struck))
        self.round = server_round
        self._barren = 0 if good else self._barren + 1
        trained = [reply.training for _, reply in sorted(good.items()) if reply.training]
        bytes_down = sum(self.delivery.bytes_down(name) for name in self.federation.online)
        summary = round_summary(verdicts, trained, self.clock.now() - started, bytes_down, bytes_up)
        self.recorder.record("verdicts", round=server_round, verdicts=verdict_fields(verdicts))
        sent = {_SENT + block: values for block, values in self.last_sent.blocks.items()} if self.last_sent else {}
        voted = {PREFIX + block: values for block, values in self.momentum.voted.items()}
        self.recorder.commit(server_round, self.blocks, self.outer.momentum | sent | voted, self._state(summary))
        trim()
        if not trained:
            return None, None
        return None, MetricRecord({"train_loss": summary["train_loss"], "tokens": summary["tokens"]})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Returns a request for each node that is online and idle to evaluate the model without training.

        Args:
            server_round: The round.
            arrays: The broadcast's buffers, which all messages share.
            config: Not used; Flower's interface has it.
            grid: Flower's way to the nodes.
        """
        return self.delivery.messages(grid, "evaluate", server_round, arrays)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Records the nodes' measurements of the model of `server_round`."""
        good = {}
        for message in replies:
            name = self.delivery.sender(message)
            try:
                with boundary():
                    good[name] = self._checked(message, name)
            except WireError as error:
                self.delivery.dropped(name, str(error))
        return self.evaluations.take(server_round, {name: checked.reply for name, checked in good.items()})

    def _take(self, message: Message, name: str) -> CheckedReply:
        """Checks a reply completely, then writes it to disk, then counts it. A dropped reply leaves no trace."""
        request = self.delivery.request(name)
        checked = self._checked(message, name)
        norms = measured(checked.updates)
        trace = self.replays.check(name, checked.reply, checked.updates)
        self._ballots.admits(name)
        self.momentum.check(checked.momentum)
        base = self.last_sent.blocks if self.last_sent else self.blocks
        if self.certified_size and (excess := self.certified_size.excess(checked.updates, base, request)):
            self._ballots.refuse(name)
            text = f"round {request.round}: {name} is outvoted: {excess}"
            self.recorder.record("warning", round=request.round, text=text)
            return checked
        checked = relocated(
            checked, self.replica_files.keep(name, checked.parcel), self.delivery.wire_layout, self.recipe
        )
        self._ballots.add(name, checked.updates, norms)
        self.momentum.add(name, checked.momentum)
        self.replays.remember(name, checked.reply, checked.updates, trace)
        return checked

    def _checked(self, message: Message, name: str) -> CheckedReply:
        request, room = self.delivery.request(name), self.delivery.room(name)
        return check_reply(message, request, name, self.delivery.wire_layout, self.recipe, room)

    def _why_barren(self) -> str:
        first = self.round - self._barren + 1
        rounds = f"round {first}" if first == self.round else f"rounds {first} to {self.round}"
        return (
            f"no node delivered an update that counts in {rounds}, so the model stayed as it was; every node_reply in "
            "the run's events says why; mend that and go on with --resume"
        )

    def _judge(self, round_number: int) -> tuple[tuple[str, ...], dict[str, str]]:
        if self.jury is None or self.witness is None or not self._ballots.voters:
            return (), {}
        found = self._ballots.judge(self.jury, self.blocks, self.witness(round_number))
        self.recorder.record(
            "judgement",
            round=round_number,
            convicted=found.reasons,
            gain=found.gain,
            scores=found.scores,
            harms=found.harms,
            t=found.t,
            struck=found.struck,
            asked=found.asked,
        )
        return found.convicted, found.struck

    def _decide(self) -> dict[str, Verdict]:
        verdicts = {}
        for block, update, verdict in self._ballots.decide(self._norms.get, self._unverified):
            self._unverified[block] = verdict.is_unverified
            if update is not None:
                if not verdict.is_unverified:
                    self._norms[block] = norm(update)
                self.outer.step(self.blocks, block, update)
            verdicts[block] = verdict
        for taken, left_out in self._ballots.left_out:
            self.recorder.record(
                "warning",
                round=self.round + 1,
                text=f"round {self.round + 1}: {taken} and {left_out} point away from each other over all their "
                f"blocks, as honest nodes do not, so one of them lies; {taken} counts in this round, {left_out} does "
                "not, and the others' held-out loss will say which of the two does good",
            )
        return verdicts

    def _explain(self, server_round: int, verdicts: Mapping[str, Verdict], good: Mapping[str, TrainReply]) -> None:
        """Says once of a node that was outvoted that it has little text, if it has."""
        train_tokens = {name: member.description.train_tokens for name, member in self.federation.members.items()}
        outvoted = {name for verdict in verdicts.values() for name in verdict.outvoted}
        for name in sorted(outvoted - self._explained):
            training = good[name].training if name in good else None
            text = little_text(name, train_tokens, training.tokens if training else 0)
            if text and not self._ballots.is_refused(name) and not planned_drill(self.recipe, name, server_round):
                self._explained.add(name)
                self.recorder.record("warning", round=server_round, text=f"round {server_round}: {text}")

    def _state(self, summary: dict[str, Any]) -> dict[str, Any]:
        return {
            "round": self.round,
            "digest": blocks_digest(self.blocks),
            "seating": self.seats.state(),
            "registered": self.federation.registered,
            "replays": self.replays.state(),
            "best": self.evaluations.best,
            "disputes": self.disputes.state(),
            "norms": self._norms,
            "unverified": self._unverified,
            "summary": summary,
        }
