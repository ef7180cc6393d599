"""The frozen part of a run's model, kept on a node's own disk: it is sent once and read from there in every round."""

import re
from pathlib import Path

from trfmoe_core.blocks import Blocks, blocks_digest
from trfmoe_core.errors import RunFolderError
from trfmoe_core.training.local_state import load_state, save_state

_NAME = re.compile(r"[0-9a-f]{64}$")


class KeptFrozen:
    """The frozen part of one run. If the file is lost or damaged, the coordinator sends the part again.

    Args:
        folder: Of this part alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def digests(self) -> list[str]:
        """Returns the digests of the parts at hand. What a file holds is checked when it is loaded."""
        return sorted(path.stem for path in self.folder.glob("*.safetensors") if _NAME.match(path.stem))

    def load(self, digest: str) -> Blocks | None:
        """Returns a part, flat and float32, by name; None if there is no file or it holds something else."""
        try:
            values = {name: tensor.float() for name, tensor in load_state(self._path(digest))[0].items()}
        except RunFolderError:
            return None
        return values if blocks_digest(values) == digest else None

    def keep(self, digest: str, values: Blocks) -> None:
        """Writes the part that arrived, in bfloat16 what is exact in it, and deletes any other.

        Raises:
            RunFolderError: The disk refuses.
        """
        short = {name: flat.bfloat16() for name, flat in values.items()}
        kept = {name: short[name] if bool((flat == short[name]).all()) else flat for name, flat in values.items()}
        save_state(self._path(digest), kept, {})
        for other in self.folder.glob("*.safetensors"):
            if other.stem != digest:
                other.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.safetensors"
