"""The model on its way to the nodes: encoded once a round, and the digest of what they will decode."""

from dataclasses import dataclass

from flwr.app import ArrayRecord

from strategies.messages import pack_buffers
from trfmoe_core.blocks import BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import TransportConfig
from trfmoe_core.wire import decode, encode


@dataclass(kw_only=True)
class Broadcast:
    """One model, packed. `base_digest` is of the weights as a node decodes them."""

    arrays: ArrayRecord
    index: str
    base_digest: str
    num_bytes: int

    @classmethod
    def of(cls, blocks: Blocks, layout: BlockLayout, transport: TransportConfig) -> "Broadcast":
        """Returns the broadcast of a model."""
        parcel = encode(blocks, layout, transport.broadcast, transport.parcel_mb << 20)
        decoded = blocks
        if transport.broadcast != "float32":
            decoded = decode(parcel, layout, layout.names, [transport.broadcast])
        return cls(
            arrays=pack_buffers(parcel),
            index=parcel.index,
            base_digest=blocks_digest(decoded),
            num_bytes=parcel.num_bytes,
        )

    def drop_arrays(self) -> None:
        """Frees the buffers once they are sent; the rest is still asked for."""
        self.arrays = ArrayRecord()
