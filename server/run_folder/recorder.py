"""Records a run: events in the journal and in the sinks, rounds as checkpoints."""

from collections.abc import Callable, Sequence
from typing import Any

from server.run_folder.checkpoints import (
    Checkpoint,
    checkpoint_path,
    checkpoint_rounds,
    file_digests,
    keep_only,
    load_checkpoint,
    save_checkpoint,
    sweep_checkpoints,
)
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import Event, Journal
from trfmoe_core.blocks import BlockLayout, Blocks, blocks_digest
from trfmoe_core.errors import RunFolderError

KEEP_LAST = 2


class RunRecorder:
    """The recorder of one run folder; hold its lock.

    A round is committed once its entry `round_committed` is on disk. The checkpoint is written before that entry; a
    checkpoint without the entry is replaced when the round is repeated.
    """

    def __init__(
        self,
        folder: RunFolder,
        layout: BlockLayout,
        sinks: Sequence[Callable[[Event], None]] = (),
        keep_last: int = KEEP_LAST,
    ) -> None:
        self.folder = folder
        self.layout = layout
        self.keep_last = keep_last
        self.sinks = list(sinks)
        self.journal = Journal(folder.events_path)
        self._tidy()

    def head(self) -> tuple[int, str]:
        """Returns the number of entries in the journal and the hash of the last one."""
        head = self.journal.head
        return head.entries, head.hash

    def record(self, kind: str, **fields: Any) -> None:
        """Appends one event and shows it to the sinks."""
        event = self.journal.append(kind, **fields)
        for sink in self.sinks:
            sink(event)

    def commit(self, round_number: int, blocks: Blocks, tensors: Blocks, state: dict[str, Any]) -> None:
        """Writes the round's checkpoint, then the journal entry that commits it, then removes old checkpoints.

        Args:
            round_number: The round.
            blocks: The model: flat float32 vectors by block name.
            tensors: The outer optimizer's tensors.
            state: What else the next round starts from; JSON values.

        Raises:
            RunFolderError: It cannot be written, or the round is committed already.
        """
        if round_number in self.folder.facts().committed:
            raise RunFolderError(f"{self.folder.path}: round {round_number} is committed already")
        root = self.folder.checkpoints_path
        files = save_checkpoint(root, round_number, self.named(blocks), tensors, state)
        kept = self._kept(round_number, state)
        fields = {"round": round_number, "digest": state["digest"], "files": files, "kept": kept}
        self.record("round_committed", **fields, **state["summary"])
        keep_only(root, kept)

    def _tidy(self) -> None:
        """Removes temporary folders of killed commits, and checkpoints that the last commit does not keep."""
        root, committed = self.folder.checkpoints_path, self.folder.facts().committed
        sweep_checkpoints(root)
        kept = committed[max(committed)].get("kept", committed) if committed else ()
        keep_only(root, [number for number in checkpoint_rounds(root) if number in kept or number not in committed])

    def _kept(self, round_number: int, state: dict[str, Any]) -> list[int]:
        """Returns the rounds whose checkpoints stay: the last few, and the best if it has one."""
        committed = self.folder.facts().committed
        found = checkpoint_rounds(self.folder.checkpoints_path)
        there = [number for number in found if number in committed or number == round_number]
        best: int = (state.get("best") or {}).get("round") or round_number
        return [number for number in there if number == best or number in there[-self.keep_last :]]

    def named(self, blocks: Blocks) -> dict[str, Any]:
        """Returns blocks as the model's named parameters."""
        shapes: dict[str, list[int]] = {}
        for spec in self.layout.specs.values():
            for slot in spec.slots:
                shape = list(slot.shape) if slot.expert is None else [slot.expert + 1, *slot.shape]
                shapes[slot.tensor] = max(shapes.get(slot.tensor, []), shape)
        weights = {name: next(iter(blocks.values())).new_empty(shape) for name, shape in shapes.items()}
        self.layout.scatter(blocks, weights)
        return weights


def committed_rounds(folder: RunFolder) -> list[int]:
    """Returns the rounds that the journal has committed, in order."""
    return list(folder.facts().committed)


def last_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """Returns the newest committed checkpoint, or None when no round is committed.

    Raises:
        RunFolderError: it is missing, or is not what was committed.
    """
    rounds = committed_rounds(folder)
    return committed_checkpoint(folder, rounds[-1]) if rounds else None


def committed_checkpoint(folder: RunFolder, number: int) -> Checkpoint:
    """Returns the checkpoint of a committed round.

    Raises:
        RunFolderError: it is missing, or is not what was committed.
    """
    event = folder.facts().committed.get(number)
    if event is None:
        raise RunFolderError(f"{folder.path}: round {number} was not committed")
    return checked_checkpoint(folder, event)


def checked_checkpoint(folder: RunFolder, committed: Event) -> Checkpoint:
    """Returns the checkpoint of a `round_committed` event.

    Raises:
        RunFolderError: it is missing, or is not what was committed.
    """
    number = committed["round"]
    path = checkpoint_path(folder.checkpoints_path, number)
    checkpoint = load_checkpoint(folder.checkpoints_path, number)
    digests = committed.get("files", {})  # runs of earlier releases have none
    if not isinstance(digests, dict):
        raise RunFolderError(f"{folder.events_path}: entry {committed['seq']} names no digests of files")
    changed = [name for name, digest in file_digests(path).items() if digests.get(name, digest) != digest]
    if blocks_digest(BlockLayout.of(checkpoint.weights).gather(checkpoint.weights)) != committed["digest"]:
        changed.append("the weights")
    if changed:
        raise RunFolderError(
            f"{path}: {' and '.join(changed)} of round {number} do not have the digest that was committed; put the "
            "folder back from a copy, or export an earlier round and begin again with `trfmoe import`"
        )
    return checkpoint


def best_round(folder: RunFolder) -> int | None:
    """Returns the round of the best kept checkpoint, or of the newest if none is the best."""
    facts = folder.facts()
    kept = set(checkpoint_rounds(folder.checkpoints_path)) & set(facts.committed)
    history = RunHistory([facts.started, *facts.evaluated.values(), *facts.committed.values()] if facts.started else ())
    best = history.best_round
    return best if best in kept else history.best_among(kept)
