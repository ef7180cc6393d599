"""A parcel's blocks by name, read and written without the model's layout: for whoever spoils replies on purpose."""

import json
from collections.abc import Mapping

from torch import Tensor

from trfmoe_core.wire import Parcel, map_values


def parcel_blocks(parcel: Parcel) -> dict[str, Tensor]:
    """Returns block name -> flat float32 values. The index is trusted."""
    values: list[Tensor] = []

    def keep(update: Tensor) -> Tensor:
        values.append(update)
        return update

    map_values(parcel, keep)
    return dict(zip(_names(parcel), values, strict=True))


def with_blocks(parcel: Parcel, blocks: Mapping[str, Tensor]) -> Parcel:
    """Returns the parcel with other values in the blocks that `blocks` names, and digests that fit."""
    names = iter(_names(parcel))
    return map_values(parcel, lambda update: blocks.get(next(names), update))


def _names(parcel: Parcel) -> list[str]:
    return [entry["block"] for entry in json.loads(parcel.index)["entries"]]
