"""The disk that a run takes, prepared text aside."""

from clients.kept.disk_limit import state_bytes
from scripts.planning.federation import PlannedRun
from scripts.planning.traffic import Traffic
from server.run_folder.recorder import KEEP_LAST

FLOAT = 4


def node_disk(run: PlannedRun) -> int:
    """Returns the largest state of a node, in bytes."""
    devices = run.recipe.training.devices
    held = run.held_by(run.fullest)
    return state_bytes(run.recipe, run.vocab_size, devices if isinstance(devices, int) else 1, held)


def coordinator_disk(run: PlannedRun, traffic: Traffic) -> int:
    """Returns the largest run folder, in bytes: checkpoints, one of them being written, and the replies of a round."""
    transport, outer = run.recipe.transport, run.recipe.outer
    each = FLOAT + (FLOAT if outer.optimizer == "nesterov" else 0)
    if transport.difference:
        each += 2 if transport.broadcast == "bfloat16" else FLOAT
    each += FLOAT if run.recipe.rounds.momentum_every else 0
    kept = KEEP_LAST + 2  # the best, and the one that is written before an older one is deleted
    return kept * each * run.trained_parameters + traffic.up


def local_disk(run: PlannedRun) -> int:
    """Returns the largest run folder of a run on one machine, in bytes: weights and two moments a checkpoint."""
    moments = 1 if run.recipe.training.optimizer == "muon" else 2
    return (run.recipe.local.keep_last + 2) * (1 + moments) * FLOAT * run.trained_parameters
