"""The last models that a node decoded, kept on its own disk. Differences are applied to them."""

import re
from pathlib import Path

import torch

from strategies.exchange.messages import TrainRequest
from trfmoe_core.blocks import BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import TransportConfig
from trfmoe_core.errors import RunFolderError, WireError
from trfmoe_core.training.local_state import load_state, save_state
from trfmoe_core.wire import Parcel, advanced, decode

KEEP = 2
"""Number of models kept. A coordinator that died in a round repeats it, against the model before that round."""

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{64})$")


class KeptModels:
    """The models of one run, one file each. If a file is lost or damaged, the coordinator sends a whole model again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def digests(self) -> list[str]:
        """Returns the base digests of the models at hand, the oldest first."""
        return [digest for _, digest in sorted(self._files())]

    def load(self, digest: str) -> Blocks | None:
        """Returns a model's blocks as they were kept, or None when they cannot be read."""
        for (_, known), path in self._files().items():
            if known == digest:
                try:
                    return load_state(path)[0]
                except RunFolderError:
                    return None
        return None

    def keep(self, number: int, digest: str, blocks: Blocks, dtype: torch.dtype) -> None:
        """Writes the model that arrived in round `number` and deletes the models that no later round needs.

        Args:
            number: The round.
            digest: Digest of the whole model; a later difference names it.
            blocks: Flat float32 vectors of the model's blocks.
            dtype: The type to write them in: that of the broadcast.

        Raises:
            RunFolderError: The disk refuses.
        """
        path = self.folder / f"{number:06d}-{digest}.safetensors"
        save_state(path, {name: values.to(dtype) for name, values in blocks.items()}, {}, durable=False)
        # Rounds after this one were never committed, so their models are deleted.
        older = sorted(key for key in self._files() if key[0] < number)
        wanted = {(number, digest), *older[len(older) - (KEEP - 1) :]}
        for key, other in self._files().items():
            if key not in wanted:
                other.unlink(missing_ok=True)

    def clear(self) -> None:
        """Deletes all models."""
        for path in self._files().values():
            path.unlink(missing_ok=True)

    def _files(self) -> dict[tuple[int, str], Path]:
        found = {path: _NAME.match(path.stem) for path in self.folder.glob("*.safetensors")}
        return {(int(match[1]), match[2]): path for path, match in found.items() if match}


def receive(
    parcel: Parcel,
    request: TrainRequest,
    layout: BlockLayout,
    names: list[str],
    transport: TransportConfig,
    bases: KeptModels,
) -> Blocks | None:
    """Returns the model that arrived, as float32, and keeps it if the recipe sends differences.

    Args:
        parcel: The message's buffers.
        request: The message's header.
        layout: Sizes of the blocks.
        names: The blocks that must have arrived, in order.
        transport: The recipe's number types for the model and for differences.
        bases: The earlier models that this node keeps.

    Returns:
        The blocks; None if a difference arrived and this node lacks the model that it must be added to.

    Raises:
        WireError: The buffers are not what the header announces.
    """
    dtype: torch.dtype = getattr(torch, transport.broadcast)
    if request.against is None:
        blocks = decode(parcel, layout, names, [transport.broadcast])
    elif transport.difference is None:
        raise WireError("a difference arrived, and the recipe says that there are none")
    else:
        held = bases.load(request.against)
        differences = decode(parcel, layout, names, [transport.difference])
        if held is None or held.keys() != differences.keys():
            return None
        blocks = {name: advanced(held.pop(name), differences.pop(name), dtype).float() for name in list(held)}
    if blocks_digest(blocks) != request.base_digest:
        if request.against is not None:
            return None
        raise WireError("the weights that arrived do not have the digest that the coordinator announced")
    if transport.difference is not None:
        bases.keep(request.round + (request.steps == 0), request.base_digest, blocks, dtype)
    return blocks
