"""The frozen part of the model on its way to the nodes: each gets it once, and again only if it has lost it."""

from collections import Counter
from collections.abc import Collection, Mapping

from flwr.app import ArrayRecord

from strategies.exchange.messages import pack_buffers
from trfmoe_core.model.frozen import FrozenPart
from trfmoe_core.wire import Parcel


class FrozenShipment:
    """What of the frozen part each node still needs.

    Args:
        part: The weights that are never trained; None: all are trained, and nothing is ever sent.
        max_buffer_bytes: Size of a buffer on the wire.
    """

    def __init__(self, part: FrozenPart | None, max_buffer_bytes: int) -> None:
        self._part, self._limit = part, max_buffer_bytes
        self._has: set[str] = set()
        self._lost: set[str] = set()
        """Nodes that lacked the part once: what they said of themselves before is out of date."""
        self._bytes: Counter[str] = Counter()
        self._packed: tuple[Parcel, ArrayRecord] | None = None

    @property
    def digest(self) -> str | None:
        """What every node's frozen part must have."""
        return self._part.digest if self._part else None

    def begin(self, known: Mapping[str, Collection[str]]) -> None:
        """Begins a phase of a round.

        Args:
            known: Node -> digests of the parts that it had when it described itself.
        """
        self._bytes.clear()
        self._has |= {name for name, digests in known.items() if self.digest in digests and name not in self._lost}

    def index(self, name: str) -> str | None:
        """Returns the index of the parcel that a node's next request brings along; None if the node has the part."""
        if self._part is None or name in self._has:
            return None
        return self._pack(self._part)[0].index

    def arrays(self, name: str) -> ArrayRecord | None:
        """Returns the buffers for a node, which all nodes share, and counts on their arrival."""
        if self._part is None or name in self._has:
            return None
        parcel, arrays = self._pack(self._part)
        self._has.add(name)
        self._bytes[name] += parcel.num_bytes
        return arrays

    def lost(self, name: str) -> None:
        """Notes that a node does not have the part, so its next request brings it along."""
        self._has.discard(name)
        self._lost.add(name)

    def bytes_to(self, name: str) -> int:
        """Returns the bytes that a node was sent in this phase."""
        return self._bytes[name]

    def drop_arrays(self) -> None:
        """Frees the buffers after they are sent."""
        self._packed = None

    def _pack(self, part: FrozenPart) -> tuple[Parcel, ArrayRecord]:
        if self._packed is None:
            parcel = part.parcel(self._limit)
            self._packed = parcel, pack_buffers(parcel)
        return self._packed
