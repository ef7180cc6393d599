"""Keeps the replicas that wait for their vote on disk, as they were sent, and maps them into memory.

An update shows which tokens a node trained on (docs/privacy.md), so only the coordinator's account may read the files.
"""

import shutil
from hashlib import sha256
from pathlib import Path

import torch

from trfmoe_core.errors import RunFolderError
from trfmoe_core.private import private_files, private_folder
from trfmoe_core.wire import Parcel

_ALIGN = 64
"""Buffers begin at multiples of so many bytes, so that values are aligned whatever their type."""


class ReplicaFiles:
    """The replicas of the current round: one file and one memory map a node. No file stays open.

    Args:
        folder: Made when needed, and emptied at every `clear`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, node: str, parcel: Parcel) -> Parcel:
        """Returns a checked parcel with its buffers mapped from the disk; the caller drops the one that it had.

        Raises:
            RunFolderError: when the disk is full or cannot be written.
        """
        if not parcel.buffers:
            return parcel
        path = self.folder / f"{sha256(node.encode()).hexdigest()[:16]}.bin"
        places: list[tuple[int, int]] = []
        try:
            private_folder(self.folder)
            path.unlink(missing_ok=True)  # The old file may still be mapped, so it is unlinked and not truncated.
            with private_files(), path.open("wb") as file:
                for buffer in parcel.buffers:
                    file.write(b"\0" * (-file.tell() % _ALIGN))
                    places.append((file.tell(), len(buffer)))
                    file.write(buffer)
                total = file.tell()
            # torch warns about read-only memory, so the map is private and writable; nothing writes to it.
            # It needs no open file, unlike Python's mmap.
            mapped = torch.from_file(str(path), shared=False, size=total, dtype=torch.uint8).numpy().data
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise RunFolderError(
                f"{self.folder}: a replica cannot be kept there ({reason}); "
                "free space and go on with --resume after the last committed round"
            ) from error
        return Parcel(parcel.index, tuple(mapped[begin : begin + size] for begin, size in places))

    def clear(self) -> None:
        """Removes the files; maps that are still in use stay valid."""
        shutil.rmtree(self.folder, ignore_errors=True)
