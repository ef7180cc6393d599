"""Signs the journal of a run."""

from pathlib import Path

from server.run_folder.folder import RunFolder
from server.run_folder.signatures import Signature, add_signature, key_text, load_private_key, read_signatures
from server.run_folder.verify import verify_run
from trfmoe_core.errors import RunFolderError


def sign_run(folder: RunFolder, key: Path) -> Signature:
    """Signs the head of a run's journal as it is now, after checking the run.

    Raises:
        ConfigError: The key cannot be used.
        RunFolderError: The run is broken or has not begun, or the signature cannot be written.
    """
    private = load_private_key(key)
    signed_before = [found.public_key for found in read_signatures(folder.path)]
    public = private.public_key()
    found = verify_run(folder, key=public if key_text(public) in signed_before else None)
    first = folder.facts().first
    if found.problems:
        raise RunFolderError(f"{folder.path}: not signed, because it is broken: {found.problems[0]}")
    if not first:
        raise RunFolderError(f"{folder.path}: not signed, because it has not begun")
    return add_signature(
        folder.path, private, str(first.get("run_id")), found.events, found.head, str(first.get("recipe_hash"))
    )
