"""Files and folders that only their owner may read: whatever holds an owner's text, or is made from it."""

import contextlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trfmoe_core.errors import RunFolderError

FOLDER_MODE, FILE_MODE = 0o700, 0o600
_OTHERS = 0o077

log = logging.getLogger("trfmoe.private")


@contextmanager
def private_files() -> Iterator[None]:
    """Lets this process, and what it starts meanwhile, make files of mode 600 and folders of mode 700 only.

    Works as a decorator too. It sets the process's umask, so it covers whatever library writes.
    """
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def private_folder(path: Path) -> Path:
    """Makes a folder of mode 700 where it is missing, tightens one that is wider with all that it holds, returns it.

    Only for folders of this project's own making: missing parents are made, existing ones are left as they are.

    Raises:
        RunFolderError: the folder belongs to another user, or something else stands there.
        OSError: it cannot be made.
    """
    with private_files():
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    tighten([path])
    return path


def tighten(folders: Iterable[Path]) -> None:
    """Takes away what others may do in folders that exist, and in all that they hold. Says so once a folder.

    A folder that is tight already is not searched: what it holds cannot be reached by others. Links are not followed.

    Raises:
        RunFolderError: a folder belongs to another user.
    """
    for folder in folders:
        try:
            status = folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        mine = os.geteuid()
        if status.st_uid != mine and mine != 0:
            raise RunFolderError(
                f"{folder}: belongs to user {status.st_uid}, and this process runs as user {mine}; what lies there "
                "could be read by others; choose another folder"
            )
        if not status.st_mode & _OTHERS:
            continue
        # The folder itself comes last: a walk that was killed begins again.
        for place, folders_inside, files in os.walk(folder, topdown=False):
            for name in (*files, *folders_inside):
                _narrow(Path(place, name))
        _narrow(folder, follow=True)
        log.warning("%s: others could read it; now only its owner can", folder)


def _narrow(path: Path, *, follow: bool = False) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process may remove it meanwhile
        mode = path.stat(follow_symlinks=follow).st_mode
        if not stat.S_ISLNK(mode) and mode & _OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
