"""The node's notes on the coordinator's journal: the hash of its last entry, which comes with every request.

If the coordinator rewrites its journal later, the new journal does not match these notes. `trfmoe verify RUN --heads
FILE` compares them.
"""

import time
from pathlib import Path

from clients.kept.notes import add_note
from strategies.exchange.messages import TrainRequest

HEADS_FILE = "heads.jsonl"


def note_head(folder: Path, request: TrainRequest) -> None:
    """Appends a request's head to the node's notes. Notes that cannot be written are a warning in the node's log."""
    if request.journal_head is None:
        return
    note = {
        "time": round(time.time(), 3),
        "run_id": request.run_id,
        "round": request.round,
        "entries": request.journal_entries,
        "head": request.journal_head,
    }
    add_note(folder / HEADS_FILE, note, "the coordinator's journal head")
