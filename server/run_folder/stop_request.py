"""A request to stop a run: a file in the run folder that the coordinator reads before each round."""

from server.run_folder.folder import RunFolder
from trfmoe_core.errors import RunFolderError

_NAME = "stop"


def request_stop(folder: RunFolder) -> None:
    """Asks the coordinator of a run to end it after the current round.

    Raises:
        RunFolderError: The file cannot be written.
    """
    path = folder.path / _NAME
    try:
        path.touch()
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}); use the account of the run") from error


def stop_requested(folder: RunFolder) -> bool:
    """Returns True if the run was asked to stop."""
    return (folder.path / _NAME).exists()


def forget_stop(folder: RunFolder) -> None:
    """Removes the request. A run that starts, or goes on, does this first.

    Raises:
        RunFolderError: The file cannot be removed.
    """
    path = folder.path / _NAME
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be removed ({error.strerror}); remove it and go on") from error
