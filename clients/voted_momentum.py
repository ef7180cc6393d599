"""The momentum that a request brings, beside the model."""

from strategies.exchange.messages import TrainRequest
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import TransportConfig
from trfmoe_core.errors import WireError
from trfmoe_core.training.shared_momentum import momentum_names, split_momentum
from trfmoe_core.wire import Parcel, decode


def open_parcel(
    parcel: Parcel, request: TrainRequest, layout: BlockLayout, transport: TransportConfig
) -> tuple[Parcel, Blocks]:
    """Returns the model's part of what arrived, and the voted momentum by block.

    Args:
        parcel: The message's buffers.
        request: The message's header.
        layout: Of all blocks that may travel.
        transport: The recipe's number types.

    Raises:
        WireError: The buffers are not what the header announces, or a value is not finite.
    """
    if request.momentum is None:
        return parcel, {}
    count = len(parcel.buffers) - request.momentum.buffers
    if count < 0:
        raise WireError(f"{len(parcel.buffers)} buffers arrived, and the momentum alone has {request.momentum.buffers}")
    second = Parcel(request.momentum.index, parcel.buffers[count:])
    found = decode(second, layout, momentum_names(layout, request.held), [transport.momentum])
    for name, values in found.items():
        if not bool(values.isfinite().all()):
            raise WireError(f"block {name!r}: the momentum that arrived is not finite")
    return Parcel(parcel.index, parcel.buffers[:count]), split_momentum(found)[1]
