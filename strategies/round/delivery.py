"""Sends a round's requests to the nodes, and yields their replies as they arrive."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from flwr.app import ArrayRecord, Message, MessageType
from flwr.serverapp import Grid

from strategies.exchange.boundary import boundary
from strategies.exchange.broadcast import NOTHING, Broadcast, Consignment
from strategies.exchange.frozen_shipment import FrozenShipment
from strategies.exchange.in_flight import Clock, InFlight
from strategies.exchange.last_sent import LastSent
from strategies.exchange.messages import DescribeRequest, MomentumIndex, RoundVerdict, TrainRequest, pack
from strategies.exchange.size_limits import SizeLimits, answer_limits
from strategies.membership.lost_requests import Pings
from strategies.membership.members import Federation
from strategies.membership.seats import Seats
from strategies.round.pace import Pace
from strategies.round.recorder import Recorder
from strategies.round.replies import Lack, lack_of
from strategies.voting.vote import Verdict
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError, WireError
from trfmoe_core.model.frozen import FrozenPart
from trfmoe_core.training.shared_momentum import PREFIX, with_momentum

Phase = Literal["train", "evaluate"]


class Delivery:
    """The requests of one run, a round at a time.

    Args:
        described: What every node agreed to.
        recipe: The run.
        layout: The model's blocks.
        federation: The members, and who of them is online.
        seats: Which node holds which block.
        last_sent: The model that was sent last; None if no differences are sent.
        recorder: Takes events.
        clock: Time; tests put in their own.
        pace: Is told who was asked and who has answered.
        frozen: The weights that are never trained, if there are any. A node gets them with its first request, and
            again if it says that it lacks them.
    """

    def __init__(
        self,
        described: DescribeRequest,
        recipe: Recipe,
        layout: BlockLayout,
        federation: Federation,
        seats: Seats,
        last_sent: LastSent | None,
        recorder: Recorder,
        clock: Clock,
        pace: Pace,
        frozen: FrozenPart | None = None,
    ) -> None:
        self._frozen = FrozenShipment(frozen, recipe.transport.parcel_mb << 20)
        self._described, self._recipe, self._layout = described, recipe, layout
        self._federation, self._seats, self._last_sent = federation, seats, last_sent
        self._recorder, self._clock, self._pace = recorder, clock, pace
        self._pings = Pings(recorder.record, clock)
        self._has: dict[str, str] = {}
        self._verdicts: dict[str, RoundVerdict] = {}
        self._phase: Phase = "train"
        self._round = 0
        self._head: tuple[int, str] | None = None
        self._broadcast: Broadcast | None = None
        self._momentum: Broadcast | None = None
        self.wire_layout = with_momentum(layout, recipe.model) if recipe.rounds.momentum_every else layout
        """Of all blocks that may travel."""
        self._exchange: InFlight | None = None
        self._requests: dict[str, TrainRequest] = {}
        self._rooms: dict[str, SizeLimits] = {}

    def encode(self, blocks: Blocks, momentum: Blocks | None = None) -> ArrayRecord:
        """Packs the model and the voted momentum for every seated node.

        Returns:
            The model's buffers, which all nodes share.
        """
        self._broadcast = self._momentum = None  # Frees the last broadcast before the next one is made.
        placement, partial = self._seats.placement, self._recipe.experts.unheld == "absent"
        wanted = {name: placement.held_by(name) if partial else self._layout.names for name in placement.nodes}
        members = self._federation.members
        known = {name: [*member.description.bases, self._has.get(name, "")] for name, member in members.items()}
        self._broadcast = Broadcast(blocks, self._layout, self._recipe.transport, wanted, self._last_sent, known)
        if momentum:
            self._momentum = self._packed(momentum)
        return self._broadcast.arrays

    def _packed(self, momentum: Blocks) -> Broadcast:
        """Packs the momentum for the holders of its blocks."""
        transport, placement = self._recipe.transport, self._seats.placement
        values = {PREFIX + block: flat for block, flat in momentum.items()}
        wanted = {
            name: [PREFIX + block for block in placement.held_by(name) if block in momentum] for name in placement.nodes
        }
        plain = transport.model_copy(update={"broadcast": transport.momentum, "difference": None})
        return Broadcast(values, self.wire_layout, plain, wanted)

    def _momentum_of(self, name: str) -> Consignment:
        return self._momentum.of(name) if self._momentum else NOTHING

    @property
    def sent(self) -> Broadcast:
        """The model as it was sent.

        Raises:
            RunError: `start` was not called yet.
        """
        if self._broadcast is None:
            raise RunError("nothing was broadcast yet; call start")
        return self._broadcast

    def bytes_down(self, name: str) -> int:
        """Returns the bytes that a node is sent in the current phase."""
        momentum = self._momentum_of(name).num_bytes if self._phase == "train" else 0
        return self.sent.of(name).num_bytes + momentum + self._frozen.bytes_to(name)

    def remember_model(self, name: str, base_digest: str) -> None:
        """Remembers which model a node has. The next difference is taken against it."""
        self._has[name] = base_digest

    def remember_verdicts(self, round_number: int, verdicts: Iterable[Verdict]) -> None:
        """Remembers what the votes of a round made of each node's updates. The next request tells the node."""
        accepted, outvoted = Counter[str](), Counter[str]()
        for verdict in verdicts:
            accepted.update(verdict.accepted)
            outvoted.update(verdict.outvoted)
        for name in {*accepted, *outvoted}:
            self._verdicts[name] = RoundVerdict(round=round_number, accepted=accepted[name], outvoted=outvoted[name])

    def request(self, name: str) -> TrainRequest:
        """Returns the request to a node in the current phase."""
        if name not in self._requests:
            self._requests[name] = self._request(name)
        return self._requests[name]

    def _request(self, name: str) -> TrainRequest:
        placement, sent = self._seats.placement, self.sent.of(name)
        training, momentum = self._phase == "train", self._momentum_of(name)
        return TrainRequest(
            run_id=self._described.run_id,
            round=self._round,
            epoch=placement.epoch,
            base_digest=sent.base_digest,
            steps=self._recipe.rounds.steps_in(self._round) if training else 0,
            held=placement.held_by(name),
            recipe=self._described.recipe,
            index=sent.index,
            against=sent.against,
            frozen=self._frozen.digest,
            frozen_index=self._frozen.index(name),
            journal_entries=self._head[0] if self._head else 0,
            journal_head=self._head[1] if self._head else None,
            verdict=self._verdicts.get(name),
            momentum=MomentumIndex(index=momentum.index, buffers=len(momentum.buffers))
            if training and momentum.buffers
            else None,
            wants_momentum=training and self._recipe.rounds.shares_momentum(self._round),
        )

    def messages(self, grid: Grid, phase: Phase, round_number: int, arrays: ArrayRecord) -> list[Message]:
        """Begins a phase of a round and returns one message for each node that is online and idle.

        The other nodes are recorded as missing.

        Args:
            grid: Flower's way to the nodes.
            phase: `train` or `evaluate`.
            round_number: The round.
            arrays: The broadcast's buffers, which all messages share.
        """
        self._phase, self._round, self._head = phase, round_number, self._recorder.head()
        self._requests.clear()
        self._rooms.clear()
        self._frozen.begin({name: one.description.frozen for name, one in self._federation.members.items()})
        exchange = self._exchange_of(grid)
        seated = self._seats.placement.nodes
        online = self._federation.online
        waiting = {name: pending for name in seated if name in online and (pending := exchange.busy(name))}
        freed = self._pings.freed(grid, waiting)
        for name in seated:
            if name not in online:
                self._missing(name, "not online when the round began")
                continue
            pending = exchange.busy(name)
            if pending is not None and (name in freed or pending.node_id != online[name].node_id):
                exchange.forget(name)
            elif pending is not None:
                self._missing(name, f"still at work on round {pending.round}")
        free = [name for name in seated if name in online and exchange.busy(name) is None]
        return [self._message(name, online[name].node_id, self.sent.arrays_of(name, arrays)) for name in free]

    def collect(
        self,
        grid: Grid,
        messages: list[Message],
        label: int,
        timeout: float,
        enough: Callable[[float], bool] | None = None,
        reject: Callable[[str], None] = lambda name: None,
    ) -> Iterator[Message]:
        """Sends the messages and yields the replies one at a time; all else that comes is recorded.

        Args:
            grid: Flower's way to the nodes.
            messages: What `messages` returned; emptied.
            label: The number that tells these messages from earlier ones.
            timeout: Seconds until those that said nothing count as silent.
            enough: Ends the wait sooner, see `InFlight.receive`.
            reject: Told of every node whose reply was dropped because it cannot be read.
        """
        exchange = self._exchange_of(grid)
        names = {
            message.metadata.dst_node_id: self._federation.name_of(message.metadata.dst_node_id) for message in messages
        }
        self._pace.begin(names.values(), training=self._phase == "train")
        for message in messages:
            name = names[message.metadata.dst_node_id]
            if refusal := exchange.send(name, message, label, self.room(name)):
                self._missing(name, refusal)
                self._pace.lost(name)
        messages.clear()
        self.sent.drop_arrays()
        self._frozen.drop_arrays()
        for arrival in exchange.receive(label, timeout, "rounds.reply_deadline_s", enough):
            lack = self._lack(arrival.node, arrival.reply) if arrival.reply is not None else None
            if lack == "frozen":
                self._frozen.lost(arrival.node)
            if lack == "base":
                self._send_whole(exchange, arrival.node, label)
            elif arrival.reply is not None:
                self._pace.heard(arrival.node)
                yield arrival.reply
            elif arrival.kind == "late":
                self._pace.heard(arrival.node)
                self._recorder.record(
                    "node_reply", round=arrival.round, node=arrival.node, status="late", reason=arrival.reason
                )
            elif arrival.kind == "broken":
                self._pace.lost(arrival.node)
                reject(arrival.node)
                self.dropped(arrival.node, arrival.reason)
            else:
                if arrival.kind == "failed":
                    self._pace.lost(arrival.node)
                self._missing(arrival.node, arrival.reason)
        self._pace.end()

    def owes(self, name: str) -> bool:
        """Returns True while a node has not answered its last request."""
        return self._exchange is not None and self._exchange.busy(name) is not None

    def sender(self, message: Message) -> str:
        """Returns the name of the node that sent a reply."""
        return self._federation.name_of(message.metadata.src_node_id)

    def dropped(self, name: str, reason: str) -> None:
        """Records that a node's reply does not count."""
        self._recorder.record(
            "node_reply", round=self._round, node=name, phase=self._phase, status="dropped", reason=reason
        )

    def _lack(self, name: str, reply: Message) -> Lack | None:
        """Returns what a node says that it lacks, if it can lack it."""
        possible = {"base": self.sent.of(name).against is not None, "frozen": self._frozen.digest is not None}
        if not any(possible.values()):
            return None
        try:
            with boundary():
                lack = lack_of(reply, self.room(name))
                return lack if lack and possible[lack] else None
        except WireError:
            return None  # The reply is checked again later, and dropped there with its reason like any other.

    def room(self, name: str) -> SizeLimits:
        """Returns how large a node's answer may be in the current phase."""
        if name not in self._rooms:
            self._rooms[name] = answer_limits(self.request(name), self.wire_layout, self._recipe)
        return self._rooms[name]

    def _send_whole(self, exchange: InFlight, name: str, label: int) -> None:
        arrays = self.sent.whole(name)
        self._requests.pop(name, None)
        message = self._message(name, self._federation.members[name].node_id, arrays)
        text = f"round {self._round}: {name} has lost the model of the last round, and gets the whole model again"
        self._recorder.record("warning", round=self._round, text=text)
        if refusal := exchange.send(name, message, label, self.room(name)):
            self._missing(name, refusal)
            self._pace.lost(name)

    def _message(self, name: str, node_id: int, arrays: ArrayRecord) -> Message:
        kind = MessageType.TRAIN if self._phase == "train" else MessageType.EVALUATE
        request, frozen = self.request(name), self._frozen.arrays(name)
        if request.momentum is not None and self._momentum is not None:
            after = self._momentum.arrays_of(name, self._momentum.arrays).values()
            arrays = ArrayRecord({str(number): array for number, array in enumerate([*arrays.values(), *after])})
        return Message(pack(request, arrays, frozen), dst_node_id=node_id, message_type=kind)

    def _exchange_of(self, grid: Grid) -> InFlight:
        self._exchange = self._exchange or InFlight(grid=grid, clock=self._clock)
        return self._exchange

    def _missing(self, name: str, reason: str) -> None:
        self._recorder.record(
            "node_reply", round=self._round, node=name, phase=self._phase, status="missing", reason=reason
        )
