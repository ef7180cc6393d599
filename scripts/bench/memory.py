"""`trfmoe bench memory`: anonymous memory, open files and maps of the coordinator while it votes over many replies.

The strategy, the checks, the spill, the vote and the checkpoint are the real ones; only the nodes are made up: each
answers with updates drawn when its reply is pulled, so that no more than one reply exists at a time outside.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import torch
from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp
from torch import Tensor

from server.in_process import InProcessGrid
from server.recorder import RunRecorder
from server.run_folder import RunFolder
from strategies.arrays import to_arrays
from strategies.messages import (
    Description,
    Evaluation,
    Training,
    TrainReply,
    TrainRequest,
    pack,
    pack_buffers,
    read_header,
)
from strategies.tri_redundant import TriRedundant
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.model.transformer import build_model
from trfmoe_core.wire import encode

SLACK_BYTES = 300e6
VOCAB = 1024


class Drawn(Mapping[str, Tensor]):
    """Updates that are drawn when they are asked for, one block at a time."""

    def __init__(self, layout: BlockLayout, held: list[str], draw: torch.Generator) -> None:
        self._layout, self._held, self._draw = layout, held, draw

    def __getitem__(self, block: str) -> Tensor:
        return torch.randn(self._layout.specs[block].numel, generator=self._draw).add_(1.0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class MadeUpNodes(InProcessGrid):
    """Nodes that answer with updates drawn at the moment when their reply is pulled."""

    def __init__(self, count: int, recipe: Recipe, layout: BlockLayout) -> None:
        super().__init__(ClientApp(), [{} for _ in range(count)], {})
        self._recipe, self._layout = recipe, layout
        self._waiting: dict[str, Message] = {}
        self.reply_bytes = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keeps the messages' headers: a network grid has sent the rest when this returns."""
        ids = []
        for message in messages:
            message_id = uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            message.content.pop("parcel", None)
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Makes up the replies."""
        return [self._answer(self._waiting.pop(one)) for one in message_ids if one in self._waiting]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        name = f"node-{node:03d}"
        if message.metadata.message_type == MessageType.QUERY:
            description = Description(
                name=name, code_fingerprint=code_fingerprint(), tokenizer_fingerprint="0" * 64, versions={}
            )
            return _reply(Message(pack(description), reply_to=message), node)
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
            return _reply(Message(pack(reply), reply_to=message), node)
        model = self._recipe.model
        share = [[1 / model.experts] * model.experts] * model.layers
        training = Training(
            loss=1.0,
            balance_loss=1.0,
            grad_norm=1.0,
            learning_rate=0.1,
            tokens=10,
            seconds=1.0,
            data_wait_share=0.0,
            peak_memory_bytes=0,
            expert_share=share,
        )
        draw = torch.Generator().manual_seed(1000 * request.round + node)
        updates = Drawn(self._layout, request.held, draw)
        parcel = encode(updates, self._layout, self._recipe.transport.updates, 64 << 20)
        self.reply_bytes = max(self.reply_bytes, parcel.num_bytes)
        told = reply.model_copy(update={"training": training, "index": parcel.index})
        return _reply(Message(pack(told, pack_buffers(parcel)), reply_to=message), node)


def _reply(message: Message, node: int) -> Message:
    message.metadata.__dict__["_src_node_id"] = node
    return message


TRANSPORTS = {"float32": {}, "int8": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"}}


def measure(num_nodes: int, width: int, transport: str = "float32") -> dict[str, Any]:
    """Returns the coordinator's peak anonymous memory over two rounds, and what the limit is made of, in bytes."""
    recipe = Recipe.model_validate(
        {
            "name": "memory",
            "num_nodes": num_nodes,
            "model": {"layers": 4, "width": width, "heads": 4, "experts": 24, "expert_width": width, "context": 32},
            "rounds": {"num_rounds": 2, "local_steps": 1},
            "transport": TRANSPORTS[transport],
        }
    )
    layout_model = build_model(recipe.model, VOCAB, 0)
    parameters = dict(layout_model.named_parameters())
    layout = BlockLayout.of(parameters)
    blocks = layout.gather(parameters)
    model_bytes = 4 * sum(flat.numel() for flat in blocks.values())
    arrays = [to_arrays(blocks)]
    del layout_model, parameters, blocks
    peak, stop = [0], threading.Event()
    files, maps = [0], [0]

    def watch() -> None:
        process = psutil.Process()
        while not stop.is_set():
            memory = process.memory_info()
            peak[0] = max(peak[0], memory.rss - memory.shared)
            files[0] = max(files[0], process.num_fds())
            maps[0] = max(maps[0], Path("/proc/self/maps").read_text().count("/spill/"))
            time.sleep(0.02)

    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder.create(Path(root), recipe)
        grid = MadeUpNodes(num_nodes, recipe, layout)
        strategy = TriRedundant(
            recipe=recipe,
            layout=layout,
            run_id="memory",
            tokenizer_fingerprint="0" * 64,
            recorder=RunRecorder(folder, layout),
            spill_folder=folder.path / "spill",
        )
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            strategy.start(grid, arrays.pop(), num_rounds=2)
        finally:
            stop.set()
            watcher.join()
    limit = 3 * model_bytes + grid.reply_bytes + SLACK_BYTES
    return {
        "nodes": num_nodes,
        "transport": transport,
        "model_mb": round(model_bytes / 1e6, 1),
        "reply_mb": round(grid.reply_bytes / 1e6, 1),
        "peak_anonymous_mb": round(peak[0] / 1e6, 1),
        "limit_mb": round(limit / 1e6, 1),
        "most_open_files": files[0],
        "most_spilled_maps": maps[0],
        "within": peak[0] <= limit,
    }


def main() -> None:
    """Measures one number of nodes in this process, so that no earlier measurement is in its memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--width", type=int, default=288)
    parser.add_argument("--transport", choices=list(TRANSPORTS), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(measure(options.nodes, options.width, options.transport)) + "\n")


if __name__ == "__main__":
    main()
