"""A fingerprint of the code, which must be the same on the coordinator and all nodes."""

import hashlib
from functools import cache

from trfmoe_core.places import APP_FOLDER

PACKAGES = ("clients", "server", "strategies", "trfmoe_core")


@cache
def code_fingerprint() -> str:
    """Returns the SHA-256 over paths and contents of all Python files of the running app, in hexadecimal."""
    root = APP_FOLDER
    state = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            state.update(f"{path.relative_to(root).as_posix()}:{len(content)};".encode())
            state.update(content)
    return state.hexdigest()
