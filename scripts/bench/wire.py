"""`trfmoe bench wire`: bytes that travel in a round, and how fast blocks are encoded and decoded.

Bytes are those of the messages of a real placement and a real broadcast: JSON header, index and buffers, down to a node
and up from it, mean over the nodes, in a round that is not the first. `first_down` is that of the first round, in which
every node gets the whole model. FedAvg, for comparison, sends every node the whole model in float32 and gets it back;
only its weights are counted.

Codec speed is float32 bytes over processor seconds of one thread: of `encode`, of `decode`, and of both, digests
included, in a process that keeps freed memory as a node does.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scripts.experiments.transports import TRANSPORTS, WAYS
from scripts.terminal.output import Output
from strategies.exchange.broadcast import Broadcast
from strategies.exchange.last_sent import LastSent
from strategies.exchange.messages import Evaluation, Training, TrainReply, TrainRequest
from strategies.placement.placement import Placement, place
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.malloc import keep_freed_memory
from trfmoe_core.model.transformer import build_model
from trfmoe_core.wire import DTYPES, decode, encode

VOCAB = 6656
MODEL = {"layers": 4, "width": 256, "heads": 4, "experts": 24, "top_k": 2, "expert_width": 256, "context": 256}
CODEC_REPETITIONS = 7
UPDATE_SIZE = 1e-3
"""Standard deviation of the made-up updates; bytes do not depend on it."""


KEYS = {
    "bytes_ratio_fedavg_9_train_bfloat16": "train bfloat16 down, int8 up",
    "bytes_ratio_fedavg_9_train": "train int8 differences, int8 up",
    "bytes_ratio_fedavg_9_int8": "absent int8 differences, int8 up",
}
GOALS = {
    "bytes_ratio_fedavg_9_train_bfloat16": 3.0,
    "bytes_ratio_fedavg_9_train": 5.0,
    "bytes_ratio_fedavg_9_int8": 8.0,
    "codec_gb_s": 1.0,
}


def drawn(layout: BlockLayout, names: Sequence[str], seed: int) -> Blocks:
    """Returns made-up updates of some blocks."""
    draw = torch.Generator().manual_seed(seed)
    return {name: UPDATE_SIZE * torch.randn(layout.specs[name].numel, generator=draw) for name in names}


def bytes_down(broadcast: Broadcast, placement: Placement, recipe: Recipe) -> list[int]:
    """Returns the size of every node's message of a round."""
    sizes = []
    for node in placement.nodes:
        sent = broadcast.of(node)
        request = TrainRequest(
            run_id="0" * 32,
            round=10,
            epoch=1,
            base_digest=sent.base_digest,
            steps=25,
            held=placement.held_by(node),
            recipe=recipe.for_nodes().model_dump(mode="json"),
            index=sent.index,
            against=sent.against,
        )
        buffers = broadcast.arrays_of(node, broadcast.arrays)
        sizes.append(len(request.model_dump_json()) + sum(len(array.data) for array in buffers.values()))
    return sizes


def bytes_up(layout: BlockLayout, held: list[str], recipe: Recipe) -> int:
    """Returns the size of a node's reply with updates of the blocks that it holds."""
    transport, model = recipe.transport, recipe.model
    parcel = encode(drawn(layout, held, 1), layout, transport.updates, transport.parcel_mb << 20)
    share = [[round(1 / model.experts, 6)] * model.experts] * model.layers
    reply = TrainReply(
        run_id="0" * 32,
        round=10,
        epoch=1,
        base_digest="0" * 64,
        name="node-01",
        evaluation=Evaluation(loss=2.345678, bits_per_byte=2.345678, tokens=8192),
        training=Training.model_validate({**dict.fromkeys(Training.model_fields, 1), "expert_share": share}),
        index=parcel.index,
    )
    return len(reply.model_dump_json()) + sum(len(buffer) for buffer in parcel.buffers)


def count(way: str, num_nodes: int, layout: BlockLayout, model: Blocks) -> dict[str, Any]:
    """Returns the bytes of one way to travel, mean over the nodes.

    Args:
        way: Name in WAYS.
        num_nodes: Nodes of the placement.
        layout: Of the model.
        model: All its blocks.
    """
    unheld, transport = WAYS[way]
    recipe = Recipe.model_validate({"model": MODEL, "transport": TRANSPORTS[transport], "num_nodes": num_nodes})
    placement = place(layout.experts, [f"node-{number:02d}" for number in range(1, num_nodes + 1)])
    wanted = {node: layout.names if unheld == "train" else placement.held_by(node) for node in placement.nodes}
    last_sent = LastSent(recipe.transport.broadcast) if recipe.transport.difference else None
    first = Broadcast(model, layout, recipe.transport, wanted, last_sent)
    first_down = bytes_down(first, placement, recipe)
    moved = {name: model[name] + update for name, update in drawn(layout, layout.names, 0).items()}
    known = {node: [first.of(node).base_digest] for node in placement.nodes}
    down = bytes_down(Broadcast(moved, layout, recipe.transport, wanted, last_sent, known), placement, recipe)
    up = [bytes_up(layout, placement.held_by(node), recipe) for node in placement.nodes]
    return {
        "down": round(sum(down) / num_nodes),
        "up": round(sum(up) / num_nodes),
        "first_down": round(sum(first_down) / num_nodes),
    }


def codec(layout: BlockLayout, groups: int) -> dict[str, dict[str, float]]:
    """Returns GB/s of every type, the best of some repetitions."""
    blocks: Mapping[str, Tensor] = drawn(layout, layout.names, 2)
    size = 4 * sum(values.numel() for values in blocks.values())
    best: dict[str, tuple[float, float]] = {}
    for _ in range(groups):
        for dtype in DTYPES:
            start = time.process_time()
            parcel = encode(blocks, layout, dtype, 64 << 20)
            middle = time.process_time()
            decode(parcel, layout, layout.names, [dtype])
            spent = (middle - start, time.process_time() - middle)
            best[dtype] = min(best.get(dtype, spent), spent, key=sum)
    return {
        dtype: {
            "encode_gb_s": size / 1e9 / encoding,
            "decode_gb_s": size / 1e9 / decoding,
            "codec_gb_s": size / 1e9 / (encoding + decoding),
        }
        for dtype, (encoding, decoding) in best.items()
    }


def measure(groups: int) -> dict[str, Any]:
    """Returns all that is printed."""
    parameters = dict(build_model(Recipe.model_validate({"model": MODEL}).model, VOCAB, 0).named_parameters())
    layout = BlockLayout.of(parameters)
    model = layout.gather(parameters)
    numel = {name: values.numel() for name, values in model.items()}
    whole = 4 * sum(numel.values())
    table: dict[str, dict[str, Any]] = {}
    for nodes in (3, 9):
        rows = {"FedAvg float32": {"down": whole, "up": whole, "first_down": whole}}
        rows |= {way: count(way, nodes, layout, model) for way in WAYS}
        table[str(nodes)] = {way: row | {"ratio": 2 * whole / (row["down"] + row["up"])} for way, row in rows.items()}
    speeds = codec(layout, groups)
    result: dict[str, Any] = {
        "model_mb": whole / 1e6,
        "trunk_share": numel[TRUNK] / sum(numel.values()),
        "experts_a_layer": MODEL["experts"],
        **{key: table["9"][way]["ratio"] for key, way in KEYS.items()},
        "codec_gb_s": speeds["int8"]["codec_gb_s"],
        "codec": speeds,
        "bytes": table,
    }
    return result | {"reached": {key: result[key] >= goal for key, goal in GOALS.items()}}


def main(as_json: bool) -> None:
    """Measures and shows."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a node does
    result = measure(CODEC_REPETITIONS)
    output = Output(as_json)
    output.line(f"model {result['model_mb']:.1f} MB, trunk {100 * result['trunk_share']:.1f}% of it")
    for nodes, rows in result["bytes"].items():
        output.line(f"\n{nodes} nodes, MB a node and round       down      up  first down   FedAvg's / ours")
        for way, row in rows.items():
            sizes = "".join(
                f"{row[key] / 1e6:{width}.2f}" for key, width in (("down", 9), ("up", 8), ("first_down", 12))
            )
            output.line(f"  {way:<33}{sizes}{row['ratio']:>18.2f}")
    output.line("\nGB/s of float32 a core     encode  decode    both")
    for dtype, row in result["codec"].items():
        output.line(f"  {dtype:<22}" + "".join(f"{value:>8.2f}" for value in row.values()))
    for key, goal in GOALS.items():
        output.line(f"{key} {result[key]:.2f}, at least {goal:g}: {'reached' if result['reached'][key] else 'MISSED'}")
    output.result({"outcome": "completed", **result, "exit_code": 0})
