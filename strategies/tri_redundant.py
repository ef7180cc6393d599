"""Tri-redundant federated training: every expert on three nodes, a vote over their updates, one commit a round.

DiLoCo's round (arXiv 2311.08105: broadcast, local steps, outer step) over the blocks of a mixture of experts, with the
mean replaced by a vote. Unlike Flower's own loop it resumes, has a deadline for everything, and no reply can end it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from logging import INFO
from statistics import fmean, median
from typing import Any, Protocol

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies.ballots import Ballots
from strategies.exchange import Clock, Exchange
from strategies.federation import Federation
from strategies.messages import DescribeRequest, TrainReply, TrainRequest, pack, pack_buffers
from strategies.outer import OuterOptimizer
from strategies.placement import Placement, place
from strategies.replies import check_reply
from strategies.voting import Agreement, norm
from trfmoe_core.blocks import BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError, WireError
from trfmoe_core.wire import decode, encode


class Recorder(Protocol):
    """Where a run leaves what happened and what was decided."""

    def record(self, kind: str, **fields: Any) -> None:
        """Appends one event."""

    def commit(self, round_number: int, blocks: Blocks, momentum: Blocks, state: dict[str, Any]) -> None:
        """Makes the result of a round durable before the next one starts."""


class TriRedundant(Strategy):
    """Runs the rounds of one federation.

    Args:
        recipe: The run.
        layout: The model's blocks.
        run_id: The run's own name for itself, the same after a resume; nodes keep their state under it.
        tokenizer_fingerprint: What every node's tokenizer must match.
        recorder: Takes events and commits.
        state: What an earlier `commit` of this run was given, to go on from there.
        momentum: The outer optimizer's vectors of that commit.
        clock: Time; tests put in their own.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        layout: BlockLayout,
        run_id: str,
        tokenizer_fingerprint: str,
        recorder: Recorder,
        state: dict[str, Any] | None = None,
        momentum: Blocks | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.recipe = recipe
        self.layout = layout
        self.run_id = run_id
        self.recorder = recorder
        self.clock = clock or Clock()
        self.outer = OuterOptimizer(recipe.outer, momentum)
        self.agreement = Agreement(cosine=recipe.agreement.cosine, norm_ratio=recipe.agreement.norm_ratio)
        self._recipe_for_nodes = recipe.for_nodes().model_dump(mode="json")
        request = DescribeRequest(run_id=run_id, recipe=self._recipe_for_nodes)
        self.federation = Federation(request, tokenizer_fingerprint, recorder.record, self.clock)
        state = state or {}
        self.round: int = state.get("round", 0)
        self.best: dict[str, Any] | None = state.get("best")
        self._norms: dict[str, float] = state.get("norms", {})
        self._unverified: dict[str, bool] = state.get("unverified", {})
        self._holders: dict[str, list[str]] | None = state.get("holders")
        self._epoch: int = state.get("epoch", 0)
        self.placement: Placement | None = None
        self.blocks: Blocks = {}
        self._broadcast_index = ""
        self._broadcast_bytes = 0
        self._base_digest = ""

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
            RunError: when fewer than three nodes can take part.
        """
        result = Result()
        self.blocks = from_arrays(initial_arrays, self.layout)
        self.summary()
        rounds = self.recipe.rounds
        self.federation.gather(grid, self.recipe.federation_size, rounds.nodes_deadline_s, timeout)
        self._place()
        config = ConfigRecord()
        arrays = self._broadcast()
        for number in range(self.round + 1, num_rounds + 1):
            self.federation.refresh(grid, timeout)
            messages = self.configure_train(number, arrays, config, grid)
            _, metrics = self.aggregate_train(number, self._collect(grid, messages, number, timeout))
            if metrics is not None:
                result.train_metrics_clientapp[number] = metrics
            arrays = self._broadcast()
            if evaluate_fn and (measured := evaluate_fn(number, to_arrays(self.blocks))) is not None:
                result.evaluate_metrics_serverapp[number] = measured
        self.federation.refresh(grid, timeout)
        messages = self.configure_evaluate(self.round, arrays, config, grid)
        final = self.aggregate_evaluate(self.round, self._collect(grid, messages, self.round, timeout))
        if final is not None:
            result.evaluate_metrics_clientapp[self.round] = final
        result.arrays = to_arrays(self.blocks)
        return result

    def summary(self) -> None:
        """Logs the settings that decide what a vote does."""
        log(INFO, "TriRedundant: vote %s, agreement %s, outer %s", self.recipe.vote, self.agreement, self.recipe.outer)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Returns one message a node that is online; `arrays` are the broadcast's buffers, shared by all."""
        placement = self._placed()
        self.recorder.record("round_planned", round=server_round, epoch=placement.epoch, base_digest=self._base_digest)
        return self._messages(server_round, self.recipe.rounds.local_steps, MessageType.TRAIN, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Votes on every block, takes the outer step and commits. Bad replies are dropped and recorded."""
        placement = self._placed()
        started = self.clock.now()
        ballots = Ballots(placement, self.recipe.vote, self.agreement)
        good: dict[str, TrainReply] = {}
        bytes_up = 0
        for message in replies:
            name = self._name_of(message)
            try:
                checked = check_reply(
                    message,
                    self._request(server_round, self.recipe.rounds.local_steps, placement.held_by(name)),
                    name,
                    self.layout,
                    self.recipe,
                )
                ballots.add(name, checked.updates, checked.training.tokens)
            except WireError as error:
                ballots.reject(name)
                self.recorder.record("node_reply", round=server_round, node=name, status="dropped", reason=str(error))
                continue
            good[name] = checked.reply
            bytes_up += checked.num_bytes
            self._record_reply(server_round, name, checked.reply, checked.num_bytes)
        self._evaluated(server_round - 1, good)
        verdicts = self._decide(ballots)
        self.round = server_round
        seconds = self.clock.now() - started
        return None, self._commit(server_round, verdicts, good, seconds, bytes_up)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Returns one message a node that is online: evaluate, do not train."""
        return self._messages(server_round, 0, MessageType.EVALUATE, arrays)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Records the nodes' measurements of the model of `server_round`."""
        good = {}
        for message in replies:
            name = self._name_of(message)
            try:
                request = self._request(server_round, 0, self._placed().held_by(name))
                good[name] = check_reply(message, request, name, self.layout, self.recipe).reply
            except WireError as error:
                self.recorder.record("node_reply", round=server_round, node=name, status="dropped", reason=str(error))
        return self._evaluated(server_round, good)

    def _place(self) -> None:
        if self._holders is None:
            self._epoch += 1
            self.placement = place(self.layout.experts, list(self.federation.members), self._epoch)
            reason = "start"
        else:
            holders = {block: tuple(names) for block, names in self._holders.items()}
            nodes = tuple(sorted({name for names in holders.values() for name in names}))
            self.placement = Placement(epoch=self._epoch, nodes=nodes, holders=holders)
            reason = "resumed"
        self._holders = {block: list(names) for block, names in self.placement.holders.items()}
        loads = self.placement.loads()
        self.recorder.record(
            "placement",
            epoch=self._epoch,
            reason=reason,
            load_min=min(loads.values()),
            load_max=max(loads.values()),
            pair_max=self.placement.pair_max(),
            holders=self._holders,
        )

    def _placed(self) -> Placement:
        if self.placement is None:
            raise RunError("the experts are not placed yet; call start")
        return self.placement

    def _broadcast(self) -> ArrayRecord:
        transport = self.recipe.transport
        parcel = encode(self.blocks, self.layout, transport.broadcast, transport.parcel_mb << 20)
        self._broadcast_index = parcel.index
        self._broadcast_bytes = parcel.num_bytes
        if transport.broadcast == "float32":
            self._base_digest = blocks_digest(self.blocks)
        else:
            decoded = decode(parcel, self.layout, self.layout.names, [transport.broadcast])
            self._base_digest = blocks_digest(decoded)
        return pack_buffers(parcel)

    def _request(self, round_number: int, steps: int, held: list[str]) -> TrainRequest:
        return TrainRequest(
            run_id=self.run_id,
            round=round_number,
            epoch=self._placed().epoch,
            base_digest=self._base_digest,
            steps=steps,
            held=held,
            recipe=self._recipe_for_nodes,
            index=self._broadcast_index,
        )

    def _messages(self, round_number: int, steps: int, kind: str, arrays: ArrayRecord) -> list[Message]:
        placement = self._placed()
        return [
            Message(
                pack(self._request(round_number, steps, placement.held_by(member.name)), arrays),
                dst_node_id=member.node_id,
                message_type=kind,
            )
            for member in self.federation.online.values()
            if member.name in placement.nodes
        ]

    def _collect(self, grid: Grid, messages: list[Message], round_number: int, timeout: float) -> Iterator[Message]:
        names = {member.node_id: name for name, member in self.federation.members.items()}
        by_node = {names[message.metadata.dst_node_id]: message for message in messages}
        for name in self._placed().nodes:
            if name not in by_node:
                self._missing(round_number, name, "not online when the round began")
        exchange = Exchange(grid=grid, deadline_s=timeout, clock=self.clock)
        for name, reply, reason in exchange.run(by_node):
            if reply is None:
                self._missing(round_number, name, reason)
            else:
                yield reply

    def _missing(self, round_number: int, name: str, reason: str) -> None:
        self.recorder.record("node_reply", round=round_number, node=name, status="missing", reason=reason)

    def _name_of(self, message: Message) -> str:
        names = {member.node_id: name for name, member in self.federation.members.items()}
        return names[message.metadata.src_node_id]

    def _decide(self, ballots: Ballots) -> list[dict[str, Any]]:
        verdicts = []
        for block, update, verdict in ballots.decide(self._norms.get, self._unverified):
            self._unverified[block] = verdict.outcome == "unverified"
            if update is not None:
                if verdict.outcome != "unverified":
                    self._norms[block] = norm(update)
                self.outer.step(self.blocks, block, update)
            verdicts.append(
                {
                    "block": block,
                    "outcome": verdict.outcome,
                    "accepted": list(verdict.accepted),
                    "outvoted": list(verdict.outvoted),
                    "missing": list(verdict.missing),
                    "invalid": list(verdict.invalid),
                }
            )
        return verdicts

    def _record_reply(self, round_number: int, name: str, reply: TrainReply, num_bytes: int) -> None:
        training = reply.training
        fields = {} if training is None else training.model_dump(mode="json", exclude={"seconds"})
        self.recorder.record(
            "node_reply",
            round=round_number,
            node=name,
            status="accepted",
            reason=None,
            drill=reply.drill,
            train_seconds=training and training.seconds,
            bytes_down=self._broadcast_bytes,
            bytes_up=num_bytes,
            **fields,
        )

    def _evaluated(self, round_number: int, replies: dict[str, TrainReply]) -> MetricRecord | None:
        measured = {name: reply.evaluation for name, reply in sorted(replies.items()) if reply.evaluation}
        if not measured:
            return None
        loss = median(evaluation.loss for evaluation in measured.values())
        bits = median(evaluation.bits_per_byte for evaluation in measured.values())
        best = self.best is None or bits < self.best["bits_per_byte"]
        if best:
            self.best = {"round": round_number, "bits_per_byte": bits}
        self.recorder.record(
            "evaluated",
            round=round_number,
            loss=loss,
            bits_per_byte=bits,
            perplexity=math.exp(min(loss, 700.0)),
            nodes={name: evaluation.model_dump(mode="json") for name, evaluation in measured.items()},
            best=best,
        )
        return MetricRecord({"loss": loss, "bits_per_byte": bits})

    def _commit(
        self,
        round_number: int,
        verdicts: list[dict[str, Any]],
        replies: dict[str, TrainReply],
        seconds: float,
        bytes_up: int,
    ) -> MetricRecord | None:
        trained = [reply.training for reply in replies.values() if reply.training]
        outcomes: dict[str, int] = {}
        outvoted: dict[str, int] = {}
        for verdict in verdicts:
            outcomes[verdict["outcome"]] = outcomes.get(verdict["outcome"], 0) + 1
            for name in verdict["outvoted"]:
                outvoted[name] = outvoted.get(name, 0) + 1
        tokens = sum(training.tokens for training in trained)
        summary = {
            "train_loss": median(training.loss for training in trained) if trained else None,
            "seconds": seconds,
            "train_share": min(1.0, fmean(t.seconds for t in trained) / max(seconds, 1e-9)) if trained else 0.0,
            "bytes_down": self._broadcast_bytes * len(self.federation.online),
            "bytes_up": bytes_up,
            "tokens": tokens,
            "tokens_per_s": tokens / max(seconds, 1e-9),
            "outcomes": outcomes,
            "outvoted": outvoted,
        }
        self.recorder.record("verdicts", round=round_number, verdicts=verdicts)
        state = {
            "round": round_number,
            "digest": blocks_digest(self.blocks),
            "epoch": self._epoch,
            "holders": self._holders,
            "best": self.best,
            "norms": self._norms,
            "unverified": self._unverified,
            "summary": summary,
        }
        self.recorder.commit(round_number, self.blocks, self.outer.momentum, state)
        if not trained:
            return None
        return MetricRecord({"train_loss": median(training.loss for training in trained), "tokens": tokens})


def to_arrays(blocks: Blocks) -> ArrayRecord:
    """Returns blocks as one raw float32 array each."""
    return ArrayRecord(
        {
            name: Array(dtype="float32", shape=(flat.numel(),), stype="trfmoe.float32", data=flat.numpy().tobytes())
            for name, flat in blocks.items()
        }
    )


def from_arrays(arrays: ArrayRecord, layout: BlockLayout) -> Blocks:
    """Returns the blocks of `to_arrays`.

    Raises:
        RunError: when a block of the layout is missing or has another size.
    """
    import numpy as np
    import torch

    blocks: Blocks = {}
    for name, spec in layout.specs.items():
        array = arrays.get(name)
        if array is None or len(array.data) != 4 * spec.numel:
            raise RunError(f"the initial arrays do not fit the model: block {name!r} is missing or of another size")
        blocks[name] = torch.from_numpy(np.frombuffer(array.data, dtype="<f4").copy())
    return blocks
