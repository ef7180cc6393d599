"""The node's own secret of a run, by which the order of its batches cannot be computed elsewhere.

The recipe's seed and the node's name are known to all nodes. One that also has the same text could compute what another
will send, and send almost the same.
"""

import secrets
from pathlib import Path

from clients.kept.states import earlier_state_path
from trfmoe_core.atomic import write_text
from trfmoe_core.config import NodeSettings
from trfmoe_core.errors import RunFolderError
from trfmoe_core.private import private_files, private_folder

_ANY_ROUND = 10**9


def salt_of(settings: NodeSettings, folder: Path) -> str:
    """Returns the salt of the node's settings; without one, that which the state folder keeps, drawn when it is new.

    A run that began before nodes had salts goes on without one, so that its batches stay in their order.

    Args:
        settings: The node's own; in a simulation they have the empty salt, so that every run repeats.
        folder: The node's state folder of this run.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    if settings.salt is not None:
        return settings.salt
    path = folder / "salt.txt"
    if not path.exists():
        is_new = earlier_state_path(folder, _ANY_ROUND) is None
        try:
            with private_files():
                private_folder(folder)
                write_text(path, secrets.token_hex(16) if is_new else "")
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written ({error.strerror or error}); mend state_dir") from error
    return path.read_text(encoding="utf-8").strip()
