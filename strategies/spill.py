"""Replicas that wait for their vote lie on the disk as they were sent, mapped into memory page by page."""

import mmap
import shutil
from hashlib import sha256
from pathlib import Path

from trfmoe_core.errors import RunFolderError
from trfmoe_core.wire import Parcel


class Spill:
    """The replicas of the round at hand, one file a node and buffer.

    Args:
        folder: Made when needed, and emptied at every `clear`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, node: str, parcel: Parcel) -> Parcel:
        """Returns the parcel with its buffers mapped from the disk; the caller drops the one that it had.

        Raises:
            RunFolderError: when the disk is full or cannot be written.
        """
        buffers = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number, buffer in enumerate(parcel.buffers):
                path = self.folder / f"{sha256(node.encode()).hexdigest()[:16]}-{number}.bin"
                path.write_bytes(buffer)
                with path.open("rb") as file:
                    # A private mapping is writable, as torch wants it; nothing writes it.
                    buffers.append(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)))
        except OSError as error:
            raise RunFolderError(
                f"{self.folder}: a replica cannot be kept there ({error.strerror or error}); "
                "free space and go on with --resume, the last round is safe"
            ) from error
        return Parcel(parcel.index, tuple(buffers))

    def clear(self) -> None:
        """Removes the files; maps that are still in use stay valid."""
        shutil.rmtree(self.folder, ignore_errors=True)
