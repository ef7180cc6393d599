"""The memory that a node and the coordinator take, by part, in bytes."""

from scripts.planning.federation import PlannedRun
from scripts.planning.traffic import Traffic
from trfmoe_core.quantize import LEVELS
from trfmoe_core.training.memory import TrainingMemory, training_memory
from trfmoe_core.wire import parcel_size

FLOAT = 4
FLOWER = 150_000_000
"""Bytes of Flower's libraries in a node's process, beside what training loads. Measured."""
SUPERNODE = 210_000_000
"""Bytes of a deployed node's SuperNode and executor, libraries that the training process maps too aside. Measured."""
COPIES = 4
"""So often a SuperNode's memory holds the largest request and reply. Measured."""
COORDINATOR = 380_000_000
"""Bytes of the coordinator's process without a model: Python, torch, Flower; mapped libraries aside. Measured."""

Parts = dict[str, int]


def machine_memory(run: PlannedRun) -> Parts:
    """Returns what training on one machine takes, of a GPU's memory if it trains there."""
    return _training_parts(_training(run))


def node_memory(run: PlannedRun, traffic: Traffic) -> Parts:
    """Returns what a round takes in the training process of the node that holds the most experts.

    In a simulation that is all of a node. A deployed node also has what `supernode_memory` says.
    On a GPU this is the memory of the machine beside it; what training takes there is `machine_memory`.
    """
    on_gpu = run.device.type == "cuda"
    training = {} if on_gpu else _training_parts(_training(run))
    return {
        **training,
        "program": FLOWER + (training["program"] if training else COORDINATOR),
        "model that arrived": FLOAT * run.node_parameters,
        "messages": _messages(traffic),
        "state of the round before": _state(run),
    }


def supernode_memory(run: PlannedRun, traffic: Traffic) -> int:
    """Returns what SuperNode and executor take on a deployed node, beside its training process, which stays."""
    request = max(traffic.node_down, traffic.first_down // len(run.zones))
    return SUPERNODE + COPIES * (request + traffic.node_up)


def coordinator_memory(run: PlannedRun, traffic: Traffic) -> Parts:
    """Returns what the coordinator takes at most in a round; libraries and files of replies are mapped on top."""
    transport, model = run.recipe.transport, FLOAT * run.trained_parameters
    parts = {"program": COORDINATOR, "model": model, "a reply and its vote": traffic.node_up + _largest_block(run)}
    if run.recipe.outer.optimizer == "nesterov":
        parts["momentum"] = model
    if run.recipe.rounds.momentum_every:
        parts["voted momentum"] = 2 * model  # and as it is sent
    if transport.difference:
        parts["model sent last"] = model // 2 if transport.broadcast == "bfloat16" else model
    # Every block is packed once, in round 1 as in a whole model.
    parts["broadcast"] = parcel_size(run.layout, run.layout.names, transport.broadcast, transport.parcel_mb << 20)
    parts["checkpoint"] = model
    if run.frozen_parameters:
        # As it is, as it is packed in round 1, and as Flower keeps it.
        parts["never trained"] = 3 * FLOAT * run.frozen_parameters
    if run.recipe.witness is not None:
        parts["witness"] = 2 * model + FLOAT * run.frozen_parameters
    return parts


def _training(run: PlannedRun) -> TrainingMemory:
    return training_memory(run.recipe.model, run.recipe.training, run.vocab_size, run.device, run.local())


def _training_parts(memory: TrainingMemory) -> Parts:
    return {
        "program": memory.program,
        "weights": memory.weights,
        "moments": memory.moments,
        "gradients": memory.gradients,
        "activations": memory.activations + memory.temporary,
    }


def _messages(traffic: Traffic) -> int:
    """Returns the size of request and reply, both as Flower keeps them and as they are packed."""
    return 2 * (traffic.node_down + traffic.node_up)


def _state(run: PlannedRun) -> int:
    """Returns the size of the file of moments and rounding errors, which is mapped while it is read."""
    held = run.numel(run.held_by(run.fullest))
    moments = 1 if run.recipe.training.optimizer == "muon" else 2
    return moments * FLOAT * run.node_trained_parameters + (2 * held if run.recipe.transport.updates in LEVELS else 0)


def _largest_block(run: PlannedRun) -> int:
    return FLOAT * max(spec.numel for spec in run.layout.specs.values())
