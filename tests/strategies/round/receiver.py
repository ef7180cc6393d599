"""A valid reply, and the way that it takes through the coordinator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from scripts.experiments.wire_grid import Sent, WireGrid
from strategies.exchange.boundary import LONGEST_REASON, boundary
from strategies.exchange.in_flight import InFlight
from strategies.exchange.messages import TrainReply, TrainRequest
from strategies.exchange.size_limits import answer_limits
from strategies.round.ballots import Ballots
from strategies.round.replay_guard import ReplayGuard
from strategies.round.replies import CheckedReply
from strategies.tri_redundant import TriRedundant
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Parcel, encode

PARAMETERS = {
    "embedding.weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "layers.0.experts.w_gate_up_EGD": torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1)),
    "layers.0.experts.w_down_EDF": torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(2)),
}
LAYOUT = BlockLayout.of(PARAMETERS)
MODEL = {"layers": 1, "experts": 2, "top_k": 2, "width": 8, "heads": 2}
UPDATES = {block: 1e-4 * values for block, values in LAYOUT.gather(PARAMETERS).items()}
PARCELS = {dtype: encode(UPDATES, LAYOUT, dtype, 100) for dtype in ("float32", "int8", "int4")}
RECIPES = {d: Recipe.model_validate({"model": MODEL, "transport": {"updates": d}}) for d in PARCELS}
PARCEL, RECIPE = PARCELS["float32"], RECIPES["float32"]
REQUEST = TrainRequest(
    run_id="run", round=3, epoch=1, base_digest="a" * 64, steps=2, held=LAYOUT.names, recipe={}, index=PARCEL.index
)
TRAINING = {"loss": 2.5, "balance_loss": 1.0, "grad_norm": 0.5, "learning_rate": 1e-3, "tokens": 64, "seconds": 0.1}
REPLY = TrainReply.model_validate(
    {
        **{key: getattr(REQUEST, key) for key in ("run_id", "round", "epoch", "base_digest")},
        "name": "ada",
        "evaluation": {"loss": 2.5, "bits_per_byte": 3.0, "tokens": 100},
        "training": {**TRAINING, "data_wait_share": 0.0, "peak_memory_bytes": 1, "expert_share": [[0.5, 0.5]]},
        "index": PARCEL.index,
    }
)


def reply_of(parcel: Parcel) -> TrainReply:
    return REPLY.model_copy(update={"index": parcel.index})


def message_of(content: RecordDict) -> Message:
    # Flower makes messages only inside of a task.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    return Message(content, dst_node_id=1, message_type=MessageType.TRAIN)


class Silent:
    """A recorder of nothing."""

    def record(self, kind: str, **fields: Any) -> None: ...

    def commit(self, *arguments: Any) -> None: ...


class Receiver:
    """Takes one reply of one node at a time, as a round does."""

    def __init__(self, dtype: str, folder: Path) -> None:
        self.recipe, self.folder = RECIPES[dtype], folder / "spill"
        self.strategy = TriRedundant(
            recipe=self.recipe,
            layout=LAYOUT,
            run_id="run",
            tokenizer_fingerprint="0" * 64,
            recorder=Silent(),
            spill_folder=self.folder,
        )
        self.strategy.blocks = LAYOUT.zeros()
        self.strategy.delivery.request = lambda name: REQUEST  # type: ignore[method-assign]
        self.content = RecordDict()
        self.spoil: Callable[[Sent], Sent | None] = lambda sent: sent
        self.grid = WireGrid(
            {1: "ada"}, lambda _, request: Message(self.content, reply_to=request), lambda _, sent: self.spoil(sent)
        )
        self.exchange = InFlight(grid=self.grid)

    def take(self, content: RecordDict, spoil: Callable[[Sent], Sent | None] = lambda sent: sent) -> CheckedReply | str:
        """Returns the reply when it counts, else the reason why not; silence is an empty reason."""
        self.content, self.spoil = content, spoil
        strategy = self.strategy
        strategy.replica_files.clear()
        self.grid.superlink.replies.clear()
        strategy._ballots = Ballots(None, self.recipe.vote, strategy.agreement)
        strategy.replays = ReplayGuard()
        room = answer_limits(REQUEST, LAYOUT, self.recipe)
        assert not self.exchange.send("ada", Message(RecordDict(), 1, MessageType.TRAIN), 3, room)
        (arrival,) = self.exchange.receive(3, 0.0, "no time")
        self.exchange.forget("ada")
        if arrival.reply is None:
            return self._without_trace("" if arrival.kind == "silent" else arrival.reason)
        try:
            with boundary():
                checked = strategy._take(arrival.reply, "ada")
        except WireError as error:
            return self._without_trace(str(error))
        if strategy._ballots.is_refused("ada"):
            return self._without_trace("refused")
        assert strategy._ballots.voters == ["ada"]
        assert len(list(self.folder.iterdir())) == 1
        return checked

    def _without_trace(self, reason: str) -> str:
        assert not self.strategy._ballots.voters
        assert not self.strategy.replays.state()
        assert not list(self.folder.glob("*"))
        assert len(reason) <= LONGEST_REASON
        assert reason.isprintable()
        reason.encode()
        return reason
