"""Refuses an update that its node has sent before, exactly or nearly: a replay says nothing about the current model."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch

from strategies.exchange.messages import TrainReply
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Replica

REMEMBERED = 8
"""Number of a node's latest updates that are compared."""

SAME = 0.999
"""Cosine above which two updates of a node count as the same with a little noise. Honest ones stay below 0.9."""

SAMPLED, WINDOW = 1024, 16
"""About how many values of an update are remembered, and how many of them are contiguous."""


class ReplayGuard:
    """Remembers what the nodes sent last: the digests in their parcels' indices, and a sample of the values.

    The sample finds nodes that are stuck or lazy. A liar can change a replay where it is sampled;
    then the vote decides.
    """

    def __init__(self, state: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> None:
        self._seen: dict[str, list[dict[str, Any]]] = {
            name: [dict(trace) for trace in traces] for name, traces in (state or {}).items()
        }

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """Returns everything that a resume needs, as plain values."""
        return {name: [dict(trace) for trace in traces] for name, traces in sorted(self._seen.items())}

    def check(self, name: str, reply: TrainReply, updates: Mapping[str, Replica]) -> dict[str, Any]:
        """Compares a node's checked reply with its earlier ones. Returns the trace that `remember` takes.

        Raises:
            WireError: when the node has sent these updates before, exactly or but for a little noise.
        """
        found = _trace(reply, updates)
        for trace in self._seen.get(name, []):
            if found["mark"] == trace["mark"]:
                raise WireError(f"a replay: the node has sent exactly these updates before, in round {trace['round']}")
            if found["blocks"] == trace["blocks"] and (cosine := _cosine(found, trace)) > SAME:
                raise WireError(
                    f"a replay: the updates have cosine {cosine:.6f} with those of round {trace['round']}; a node that "
                    f"trains stays far below {SAME}"
                )
        return found

    def remember(
        self, name: str, reply: TrainReply, updates: Mapping[str, Replica], trace: dict[str, Any] | None = None
    ) -> None:
        """Remembers a reply that counts.

        Args:
            name: The node.
            reply: The reply's header.
            updates: The reply's updates by block.
            trace: What `check` returned for this reply, if it was called.
        """
        seen = self._seen.setdefault(name, [])
        seen.append(_trace(reply, updates) if trace is None else trace)
        del seen[:-REMEMBERED]


def _trace(reply: TrainReply, updates: Mapping[str, Replica]) -> dict[str, Any]:
    # The same index can be written in many ways, so its parsed content is compared.
    entries = json.loads(reply.index or '{"entries": []}')["entries"]
    digests = sorted((entry["block"], entry["sha256"]) for entry in entries)
    blocks = sorted(updates)
    return {
        "round": reply.round,
        "mark": hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:32],
        "blocks": hashlib.sha256(json.dumps(blocks).encode()).hexdigest()[:16],
        "sample": base64.b64encode(_sample([updates[block] for block in blocks]).tobytes()).decode(),
    }


def _sample(updates: Sequence[Replica]) -> np.ndarray:
    """Returns windows spread evenly over the updates and over each of them, float16, scaled to their largest value."""
    step = max(1, len(updates) * WINDOW // SAMPLED)
    chosen = updates[::step]
    windows = max(1, SAMPLED // (WINDOW * max(1, len(chosen))))
    parts = [torch.zeros(0)]
    for update in chosen:
        for number in range(windows):
            begin = update.numel() * number // windows
            parts.append(update[begin : begin + WINDOW].float())
    sample = torch.cat(parts)
    return (sample / sample.abs().amax().clamp(min=1e-30)).half().numpy() if sample.numel() else sample.half().numpy()


def _cosine(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    a, b = (np.frombuffer(base64.b64decode(trace["sample"]), np.float16).astype(np.float64) for trace in (one, other))
    if len(a) != len(b) or not a.any() or not b.any():
        return 0.0
    return float(a @ b / sqrt((a @ a) * (b @ b)))
