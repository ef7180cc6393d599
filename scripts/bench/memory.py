"""`trfmoe bench memory`: anonymous memory, open files and maps of the coordinator while it votes over many replies.

Strategy, checks, files of replicas, vote and checkpoint are the real ones. The nodes are simulated: a node's random
updates are drawn when its reply is pulled, so that at most one reply exists outside the coordinator at a time.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

from scripts.bench.made_up_nodes import MadeUpNodes
from scripts.bench.measure import Highest, anonymous_bytes
from scripts.experiments.in_process import InProcessGrid
from scripts.experiments.transports import TRANSPORTS
from server.run_folder.folder import RunFolder
from server.run_folder.recorder import RunRecorder
from strategies.exchange.arrays import to_arrays
from strategies.tri_redundant import TriRedundant
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.model.transformer import build_model

SLACK_BYTES = 300e6
VOCAB = 1024


class LateGrid(InProcessGrid):
    """Asks the nodes at the moment when their reply is pulled."""

    def __init__(self, nodes: MadeUpNodes, count: int) -> None:
        super().__init__(ClientApp(), [{} for _ in range(count)], {})
        self._nodes = nodes
        self._waiting: dict[str, Message] = {}

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
        found = []
        for message in [self._waiting.pop(one) for one in message_ids if one in self._waiting]:
            reply = self._nodes.answer(message.metadata.dst_node_id, message)
            reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
            found.append(reply)
        return found


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
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder.create(Path(root), recipe)
        nodes = MadeUpNodes(recipe, layout)
        strategy = TriRedundant(
            recipe=recipe,
            layout=layout,
            run_id="memory",
            tokenizer_fingerprint="0" * 64,
            recorder=RunRecorder(folder, layout),
            spill_folder=folder.path / "spill",
        )
        with Highest(_held_now, every_s=0.02) as highest:
            strategy.start(LateGrid(nodes, num_nodes), arrays.pop(), num_rounds=2)
    peak_bytes = highest.values["anonymous"]
    limit = 3 * model_bytes + nodes.reply_bytes + SLACK_BYTES
    return {
        "nodes": num_nodes,
        "transport": transport,
        "model_mb": round(model_bytes / 1e6, 1),
        "reply_mb": round(nodes.reply_bytes / 1e6, 1),
        "peak_anonymous_mb": round(peak_bytes / 1e6, 1),
        "limit_mb": round(limit / 1e6, 1),
        "most_open_files": highest.values["open_files"],
        "most_spilled_maps": highest.values["spilled_maps"],
        "within": peak_bytes <= limit,
    }


def _held_now() -> dict[str, int]:
    """Returns what this process holds; files and maps of replies that wait on the disk count as well."""
    maps = Path("/proc/self/maps").read_text().count("/spill/")
    return {"anonymous": anonymous_bytes(), "open_files": psutil.Process().num_fds(), "spilled_maps": maps}


def main(num_nodes: int, width: int, transport: str) -> dict[str, Any]:
    """Returns the measurement of one number of nodes."""
    torch.set_num_threads(1)
    return measure(num_nodes, width, transport)
