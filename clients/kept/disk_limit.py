"""The owner's disk limit. It is checked before the node writes anything and while the node prepares text.

The limit covers what this node keeps of runs (`state_dir`) and of prepared text (`cache_dir`). A megabyte is 2**20
bytes.
"""

import contextlib
import logging
import re
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from clients.kept.states import KEEP_STATES, give_up, state_folders
from clients.limit_checks import OverLimitsError, num_parameters
from clients.refusals import RefusedError
from clients.settings import cache_folder, state_base
from strategies.exchange.refusals import Refusal
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.data.prepare.corpus_cache import CACHES
from trfmoe_core.model.transformer import frozen_shapes

_MB = 1 << 20
_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 1}
_LOOK_S = 1.0
_CORPUS = re.compile(r"[0-9a-f]{64}(\.shards)?")

log = logging.getLogger("trfmoe.node")


def state_bytes(recipe: Recipe, vocab_size: int, devices: int = 1, held: Collection[str] | None = None) -> int:
    """Returns the largest size of a node's state of a run.

    It counts one more state file than is kept (moments and rounding errors), because the next one is written before the
    oldest is deleted; the last reply; the models that differences are added to; the files that ranks exchange if
    several devices train; and the weights that are never trained.

    Args:
        recipe: The run.
        vocab_size: Number of token ids.
        devices: That train together on this node.
        held: As for `num_parameters`.
    """
    transport = recipe.transport
    each = (KEEP_STATES + 1) * (2 * 4 + (2 if transport.updates in ("int8", "int4") else 0))
    each += 2 * _BYTES[transport.updates] * (2 if recipe.rounds.momentum_every else 1)
    each += 3 * _BYTES[transport.broadcast] if transport.difference else 0
    each += 4 + 3 * 4 if devices > 1 else 0
    frozen = frozen_shapes(recipe.model, vocab_size, recipe.training.freeze).values()
    return each * num_parameters(recipe, vocab_size, held) + 4 * sum(shape.numel() for shape in frozen)


class DiskLimit:
    """The room for one run on one node.

    Args:
        settings: The node's own.
        run_id: The current run. Its state is never deleted.
        needed_bytes: `state_bytes` of the run.
    """

    def __init__(self, settings: NodeSettings, run_id: str, needed_bytes: int) -> None:
        self._name, self._run_id, self._needed = settings.name, run_id, needed_bytes
        self._granted = settings.limits.disk_mb
        self._states, self._cache = state_base(settings), cache_folder(settings)
        self._looked = 0.0

    def make(self) -> None:
        """Makes room for the run's state. If it does not fit, states of other runs are deleted, then prepared text.

        Raises:
            OverLimitsError: the owner grants less.
            RefusedError: the disk has less.
        """
        mine = _size(self._states / self._run_id / self._name)
        free = shutil.disk_usage(_existing(self._states)).free
        if self._needed - mine > free:
            raise RefusedError(
                Refusal(code="disk"),
                f"{self._states}: {free // _MB} MB are free, and this run's state takes {self._needed // _MB} MB; free "
                "space, or choose another state_dir",
            )
        if self._granted is None or self._over() <= 0:
            return
        for folder, remove in self._dispensable():
            log.warning("%s: removed, to stay within limits.disk_mb: %d", folder, self._granted)
            remove(folder)
            if self._over() <= 0:
                return
        raise self._error()

    def watch(self) -> None:
        """Checks the limit at most once a second, while text is prepared.

        Raises:
            OverLimitsError: the text takes more than the owner grants.
        """
        now = time.monotonic()
        if self._granted is None or now - self._looked < _LOOK_S:
            return
        # Shards stay until they are merged, and the merged corpus takes at most the same space again.
        shards = sum(_size(folder) for folder in (self._cache / "corpora").glob("*.shards"))
        self._looked = now
        if self._over() + shards > 0:
            raise self._error(shards)

    def check(self) -> None:
        """Looks once more when the text is prepared.

        Raises:
            OverLimitsError: the text takes more than the owner grants.
        """
        if self._granted is not None and self._over() > 0:
            raise self._error()

    def _used(self) -> int:
        cached = sum(_size(self._cache / name) for name in CACHES)
        sizes = {run_id: _size(path) for run_id, path in state_folders(self._states, self._name).items()}
        mine = sizes.pop(self._run_id, 0)
        return cached + sum(sizes.values()) + max(mine, self._needed)

    def _over(self) -> int:
        return self._used() - (self._granted or 0) * _MB

    def _dispensable(self) -> list[tuple[Path, Callable[[Path], None]]]:
        """Returns what may be deleted, the oldest first: states of other runs, then prepared text."""
        kept = state_folders(self._states, self._name)
        states = [path for run_id, path in kept.items() if run_id != self._run_id]
        corpora = [path for path in (self._cache / "corpora").glob("*") if _CORPUS.fullmatch(path.name)]
        return [
            *((path, give_up) for path in sorted(states, key=_modified)),
            *((path, _remove) for path in sorted(corpora, key=_modified)),
        ]

    def _error(self, more: int = 0) -> OverLimitsError:
        asked, granted = -(-(self._used() + more) // _MB), self._granted or 0
        return OverLimitsError(
            "limits-disk",
            f"{self._states} and {self._cache} would take {asked} MB with this run, and the owner of this node grants "
            f"{granted} MB (limits.disk_mb)",
            asked,
            granted,
        )


def _size(path: Path) -> int:
    """Returns the bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            status = file.lstat()
            total += status.st_size if not file.is_dir() else 0
    return total


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
