"""The model on its way to the nodes: each block is encoded once a round, and each node's model gets a digest.

Blocks that go to the same nodes share buffers, so that the network carries them once. If the recipe says so, a node
that has the model sent last gets the difference to it. Every other node gets the whole model.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord
from torch import Tensor

from strategies.exchange.last_sent import LastSent, LazyBlocks
from strategies.exchange.messages import pack_buffers
from trfmoe_core.blocks import BlockLayout, Blocks, block_digest, combined_digest
from trfmoe_core.config import TransportConfig
from trfmoe_core.wire import Parcel, encode, join

Wanted = Mapping[str, Collection[str]]
"""Maps each node to the blocks that it gets."""


@dataclass(frozen=True, kw_only=True)
class Consignment:
    """The model that one node gets. `base_digest` is the digest of the weights as the node decodes them."""

    index: str
    buffers: tuple[int, ...]
    """Which of the broadcast's buffers, in the order of the index."""
    base_digest: str
    num_bytes: int
    against: str | None = None
    """Base digest of the model that the node has, if it gets the difference to that model."""


NOTHING = Consignment(index="", buffers=(), base_digest="", num_bytes=0)
"""What a node gets to which nothing is sent."""


class Broadcast:
    """One model, packed for every node that gets a part of it.

    Args:
        blocks: The model.
        layout: Its blocks.
        transport: How it travels.
        wanted: Node -> blocks that it gets.
        last_sent: What was sent last, which becomes what is sent now; needed for differences.
        known: Node -> base digests of the models that it has.
    """

    def __init__(
        self,
        blocks: Blocks,
        layout: BlockLayout,
        transport: TransportConfig,
        wanted: Wanted,
        last_sent: LastSent | None = None,
        known: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._layout, self._transport, self._last_sent, self._wanted = layout, transport, last_sent, wanted
        against: dict[str, str] = {}
        if last_sent is None or transport.difference is None:
            digests: dict[str, str] = {}

            def sent(name: str, values: Tensor) -> None:
                digests[name] = block_digest(values)

            packed = [self._pack(blocks, wanted, transport.broadcast, sent)]
        else:
            if last_sent.blocks:
                last = {node: last_sent.digest(names) for node, names in wanted.items()}
                against = {node: has for node, has in last.items() if has and has in (known or {}).get(node, ())}
                changed = {node: wanted[node] for node in against}
                # All blocks advance, even those that no node gets now: differences must not depend on who is online.
                differences = last_sent.differences(blocks, layout.names)
                packed = [self._pack(differences, changed, transport.difference, last_sent.advance)]
            else:
                last_sent.begin(blocks)
                packed = []
            rest = {node: names for node, names in wanted.items() if node not in against}
            needed = {name for names in rest.values() for name in names}
            packed.append(self._pack(last_sent.whole(needed), rest, transport.broadcast))
            digests = last_sent.digests
        self._digests = digests
        self.base_digest = combined_digest(digests)
        """Of the whole model as it travels."""
        buffers: list[bytes | memoryview] = []
        # Most nodes get the same blocks, so their difference is computed once.
        made: dict[tuple[frozenset[str], str | None], Consignment] = {}
        self._of: dict[str, Consignment] = {}
        for groups in packed:
            parts: dict[str, list[tuple[Parcel, int]]] = {node: [] for nodes in groups for node in nodes}
            for nodes, parcel in groups.items():
                for node in nodes:
                    parts[node].append((parcel, len(buffers)))
                buffers += parcel.buffers
            for node, parcels in parts.items():
                key = (frozenset(wanted[node]), against.get(node))
                if key not in made:
                    made[key] = replace(self._consign(parcels, key[0]), against=key[1])
                self._of[node] = made[key]
        self.arrays = pack_buffers(Parcel("", tuple(buffers)))
        """All buffers, by number."""

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
        """Frees the buffers after they are sent. Digests and indices are still needed."""
        self.arrays = ArrayRecord()

    def whole(self, node: str) -> ArrayRecord:
        """Returns the buffers of the whole model, for a node that lacks the model that its difference needs.

        Raises:
            ValueError: This broadcast has no differences, so the node was sent the whole model already.
        """
        if self._last_sent is None:
            raise ValueError("nothing but whole models was sent")
        names = self._wanted[node]
        limit = self._transport.parcel_mb << 20
        parcel = encode(self._last_sent.whole(names), self._layout, self._transport.broadcast, limit)
        bytes_before = self._of[node].num_bytes
        consigned = self._consign([(parcel, 0)], names)
        self._of[node] = replace(consigned, num_bytes=bytes_before + consigned.num_bytes)
        return pack_buffers(parcel)

    def _pack(
        self,
        blocks: Mapping[str, Tensor],
        wanted: Wanted,
        dtype: str,
        sent: Callable[[str, Tensor], None] | None = None,
    ) -> dict[tuple[str, ...], Parcel]:
        """Returns one parcel for each set of recipients."""
        recipients: dict[str, list[str]] = {name: [] for name in sorted(blocks)}
        for node in sorted(wanted):
            for block in wanted[node]:
                recipients[block].append(node)
        groups: dict[tuple[str, ...], list[str]] = {}
        for block, nodes in recipients.items():
            groups.setdefault(tuple(nodes), []).append(block)
        limit = self._transport.parcel_mb << 20
        packed = {}
        for group, names in groups.items():
            chosen = LazyBlocks(names, blocks.__getitem__)
            packed[group] = encode(chosen, self._layout, dtype, limit, sent)
        packed.pop((), None)
        return packed

    def _consign(self, parts: list[tuple[Parcel, int]], names: Collection[str]) -> Consignment:
        parcel = join([parcel for parcel, _ in parts])
        numbers = [first + place for parcel, first in parts for place in range(len(parcel.buffers))]
        digest = combined_digest({name: self._digests[name] for name in names})
        return Consignment(index=parcel.index, buffers=tuple(numbers), base_digest=digest, num_bytes=parcel.num_bytes)
