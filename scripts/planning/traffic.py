"""The bytes that a federation sends, counted as its journal counts them: blocks and their index, without headers."""

from dataclasses import dataclass

from scripts.planning.federation import PlannedRun
from trfmoe_core.training.shared_momentum import momentum_names, with_momentum
from trfmoe_core.wire import parcel_size

FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of parcels."""

    first_down: int
    """To all nodes in round 1, when each gets its whole model, what is never trained included."""
    down: int
    """To all nodes in a later round."""
    up: int
    """From all nodes in a round."""
    node_down: int
    """To one node in a later round, the most."""
    node_up: int
    """From one node in a round, the most."""
    fedavg_share: float
    """Bytes of a later round, as a share of a round of FedAvg: the whole model in float32 to every node and back."""
    full_share: float
    """The same where every low-rank expert is written out in full."""
    momentum_rounds: int
    """Rounds in which momentum is sent; the voted one comes with the next round's model."""
    momentum_down: int
    """To all nodes after each of them, on top."""
    momentum_up: int
    """From all nodes in each of them, on top."""
    total: int
    """Of the whole run, the last evaluation included, for which every node gets the final model."""


def planned_traffic(run: PlannedRun) -> Traffic:
    """Returns what travels if every node takes part in every round and none loses the model that it has."""
    transport, rounds = run.recipe.transport, run.recipe.rounds.num_rounds
    limit = transport.parcel_mb << 20
    nodes = run.placement.nodes
    first = {node: parcel_size(run.layout, run.received_by(node), transport.broadcast, limit) for node in nodes}
    later = first
    if transport.difference:
        later = {node: parcel_size(run.layout, run.received_by(node), transport.difference, limit) for node in nodes}
    up = {node: parcel_size(run.layout, run.held_by(node), transport.updates, limit) for node in nodes}
    frozen = parcel_size(run.frozen, run.frozen.names, "float32", limit) if run.frozen.names else 0
    travelling = with_momentum(run.layout, run.recipe.model)
    momentum = {node: momentum_names(travelling, run.held_by(node)) for node in nodes}
    sharing = sum(run.recipe.rounds.shares_momentum(number) for number in range(1, rounds + 1))
    momentum_down, momentum_up = (
        sum(parcel_size(travelling, names, dtype, limit) for names in momentum.values()) if sharing else 0
        for dtype in (transport.momentum, transport.updates)
    )
    first_down, down, sent = sum(first.values()) + len(nodes) * frozen, sum(later.values()), sum(up.values())
    return Traffic(
        first_down=first_down,
        down=down,
        up=sent,
        node_down=max(later.values()),
        node_up=max(up.values()),
        fedavg_share=(down + sent) / (2 * len(nodes) * FLOAT * run.parameters),
        full_share=(down + sent) / (2 * len(nodes) * FLOAT * run.full_parameters),
        momentum_rounds=sharing,
        momentum_down=momentum_down,
        momentum_up=momentum_up,
        # Round 1, the others, and the evaluation of the last model.
        total=first_down + rounds * (down + sent) + sharing * (momentum_down + momentum_up),
    )
