"""The model on its way to the nodes: every block encoded once a round, and the digest of what each node will decode.

Blocks that go to the same nodes share buffers, so that content meant for several travels to the network once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord

from strategies.messages import pack_buffers
from trfmoe_core.blocks import BlockLayout, Blocks, block_digest, combined_digest
from trfmoe_core.config import TransportConfig
from trfmoe_core.wire import Parcel, decode, encode, join


@dataclass(frozen=True, kw_only=True)
class Consignment:
    """What one node gets. `base_digest` is of the weights as the node decodes them."""

    index: str
    buffers: tuple[int, ...]
    """Which of the broadcast's buffers, in the order of the index."""
    base_digest: str
    num_bytes: int


class Broadcast:
    """One model, packed for every node that gets a part of it.

    Args:
        blocks: The model.
        layout: Its blocks.
        transport: How it travels.
        wanted: Node -> blocks that it gets.
    """

    def __init__(
        self, blocks: Blocks, layout: BlockLayout, transport: TransportConfig, wanted: Mapping[str, Collection[str]]
    ) -> None:
        recipients: dict[str, list[str]] = {}
        for node in sorted(wanted):
            for block in wanted[node]:
                recipients.setdefault(block, []).append(node)
        groups: dict[tuple[str, ...], list[str]] = {}
        for block in sorted(recipients):
            groups.setdefault(tuple(recipients[block]), []).append(block)
        parts: dict[str, list[tuple[Parcel, int]]] = {node: [] for node in wanted}
        buffers: list[bytes | memoryview] = []
        digests: dict[str, str] = {}
        for nodes, names in groups.items():
            group = {name: blocks[name] for name in names}
            parcel = encode(group, layout, transport.broadcast, transport.parcel_mb << 20)
            if transport.broadcast != "float32":
                group = decode(parcel, layout, names, [transport.broadcast])
            digests |= {name: block_digest(values) for name, values in group.items()}
            for node in nodes:
                parts[node].append((parcel, len(buffers)))
            buffers += parcel.buffers
        self.arrays = pack_buffers(Parcel("", tuple(buffers)))
        """All buffers, by number."""
        self.base_digest = combined_digest(digests)
        """Of the whole model as it travels."""
        self._digests = digests
        # Most nodes get the same, and then the work is done once.
        made: dict[frozenset[str], Consignment] = {}
        self._of: dict[str, Consignment] = {}
        for node, chosen in wanted.items():
            key = frozenset(chosen)
            if key not in made:
                made[key] = self._consign(parts[node], key)
            self._of[node] = made[key]

    def of(self, node: str) -> Consignment:
        """Returns what a node gets; nothing for a node that was not named."""
        return self._of.get(node) or self._consign([], frozenset())

    def arrays_of(self, node: str, arrays: ArrayRecord) -> ArrayRecord:
        """Returns a node's buffers out of all of them; they share memory."""
        numbers = self.of(node).buffers
        if len(numbers) == len(arrays):
            return arrays
        return ArrayRecord({str(place): arrays[str(number)] for place, number in enumerate(numbers)})

    def drop_arrays(self) -> None:
        """Frees the buffers once they are sent; the rest is still asked for."""
        self.arrays = ArrayRecord()

    def _consign(self, parts: list[tuple[Parcel, int]], names: Collection[str]) -> Consignment:
        parcel = join([parcel for parcel, _ in parts])
        numbers = [first + place for parcel, first in parts for place in range(len(parcel.buffers))]
        digest = combined_digest({name: self._digests[name] for name in names})
        return Consignment(index=parcel.index, buffers=tuple(numbers), base_digest=digest, num_bytes=parcel.num_bytes)
