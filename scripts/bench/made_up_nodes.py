"""Nodes for benchmarks of the coordinator: they agree to every run, and answer with updates that are drawn."""

from collections.abc import Iterator, Mapping

import torch
from flwr.app import Message, MessageType
from torch import Tensor

from strategies.exchange.messages import (
    DescribeRequest,
    Description,
    Evaluation,
    Training,
    TrainReply,
    TrainRequest,
    pack,
    pack_buffers,
    read_header,
)
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.wire import encode


class Drawn(Mapping[str, Tensor]):
    """Updates that are drawn when they are asked for, one block at a time. Those of different nodes agree."""

    def __init__(self, layout: BlockLayout, held: list[str], draw: torch.Generator) -> None:
        self._layout, self._held, self._draw = layout, held, draw

    def __getitem__(self, block: str) -> Tensor:
        return torch.randn(self._layout.specs[block].numel, generator=self._draw).add_(1.0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class MadeUpNodes:
    """The nodes of one run.

    Args:
        recipe: The run.
        layout: The model's blocks.
    """

    def __init__(self, recipe: Recipe, layout: BlockLayout) -> None:
        self._recipe, self._layout = recipe, layout
        self.reply_bytes = 0
        """Size of the largest parcel that was sent."""

    def answer(self, node_id: int, message: Message) -> Message:
        """Returns the answer of a node to a request."""
        name = f"node-{node_id:05d}"
        if message.metadata.message_type == MessageType.QUERY:
            asked = read_header(message, DescribeRequest)
            description = Description(
                name=name,
                code_fingerprint=asked.code_fingerprint,
                tokenizer_fingerprint=asked.tokenizer_fingerprint,
                versions={},
                train_tokens=1,
            )
            return Message(pack(description), reply_to=message)
        request = read_header(message, TrainRequest)
        reply = TrainReply(
            run_id=request.run_id,
            round=request.round,
            epoch=request.epoch,
            base_digest=request.base_digest,
            name=name,
            evaluation=Evaluation(loss=1.0, bits_per_byte=1.0, tokens=1),
        )
        if not request.steps:
            return Message(pack(reply), reply_to=message)
        draw = torch.Generator().manual_seed(100_000 * request.round + node_id)
        updates = Drawn(self._layout, request.held, draw)
        parcel = encode(updates, self._layout, self._recipe.transport.updates, 64 << 20)
        self.reply_bytes = max(self.reply_bytes, parcel.num_bytes)
        told = reply.model_copy(update={"training": self._training(), "index": parcel.index})
        return Message(pack(told, pack_buffers(parcel)), reply_to=message)

    def _training(self) -> Training:
        model = self._recipe.model
        return Training(
            loss=1.0,
            balance_loss=1.0,
            grad_norm=1.0,
            learning_rate=0.1,
            tokens=10,
            seconds=1.0,
            data_wait_share=0.0,
            peak_memory_bytes=0,
            expert_share=[[round(1 / model.experts, 6)] * model.experts] * model.layers,
        )
