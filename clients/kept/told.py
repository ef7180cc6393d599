"""What this node's log has said already: the coordinator asks again and again, and a refusal is said once.

Every message is a process of its own, so the note is a file. `scripts/deploy/node_clientapp.py` has its own, for what
it says before any code of the app runs.
"""

import hashlib
import json
import os
import time
from pathlib import Path

from trfmoe_core.atomic import write_bytes

NODE_FILE_VARIABLE = "TRFMOE_NODE_FILE"
"""Names the settings of a node that its start script started; its folder is where the note is kept."""

TOLD_FILE = "told.json"
AGAIN_S = 3600.0
"""Seconds after which the same is said once more."""


def is_news(text: str, now_s: float | None = None) -> bool:
    """Returns True if the log has not said this within the last hour, and notes that it says so now.

    Without a start script, or where the note cannot be kept, everything is news.

    Args:
        text: What is to be said.
        now_s: Seconds since 1970; None: the clock's.
    """
    node_file = os.environ.get(NODE_FILE_VARIABLE)
    if not node_file:
        return True
    path, now = Path(node_file).with_name(TOLD_FILE), time.time() if now_s is None else now_s
    key = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    told = {key: since for key, since in _read(path).items() if 0 <= now - since < AGAIN_S}
    if key in told:
        return False
    try:
        write_bytes(path, json.dumps(told | {key: now}).encode(), 0o600)
    except OSError:
        return True  # What hinders it, such as a full disk, is said where it does harm.
    return True


def _read(path: Path) -> dict[str, float]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = raw.items() if isinstance(raw, dict) else ()
    return {key: float(since) for key, since in found if isinstance(since, int | float)}
