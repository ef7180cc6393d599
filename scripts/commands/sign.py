"""`trfmoe sign`: makes a later change of a run's journal detectable by whoever has the public key."""

import os
from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import JsonOption


def sign(
    run: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ed25519 private key, such as a kit's coordinator/sign.key; without it, this account's own, which is "
            "made when it is missing.",
        ),
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make this key first, and its public half FILE.pub.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the head of a run's journal; `trfmoe verify RUN --key PUBLIC` checks it."""
    from scripts.run.run_folders import run_folder
    from scripts.run.signing import sign_run
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.places import config_home

    output = Output(as_json)
    folder = run_folder(run)
    if key and new_key:
        raise ConfigError("--key and --new-key: give one of the two")
    own = key or new_key or config_home() / "sign.key"
    if new_key or (key is None and not own.exists()):
        public = make_key(own)
        output.line(f"new key {own}: keep it where only you can read it; give {public} to whoever will verify")
    signature = sign_run(folder, own)
    said = signature.statement
    output.line(f"signed at entry {said.entries}, head {said.head}")
    output.result(
        {
            "outcome": "signed",
            "entries": said.entries,
            "head": said.head,
            "public_key": signature.public_key,
            "exit_code": 0,
        }
    )


def make_key(path: Path) -> Path:
    """Writes a new private key (mode 600) and its public half beside it, and returns the latter's path.

    Raises:
        ConfigError: one of the two files is there already, or cannot be written.
    """
    from server.run_folder.signatures import new_key
    from trfmoe_core.errors import ConfigError

    public = path.with_name(f"{path.name}.pub")
    private_pem, public_pem = new_key()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, data, mode in ((path, private_pem, 0o600), (public, public_pem, 0o644)):
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
                handle.write(data)
    except FileExistsError as error:
        raise ConfigError(f"{error.filename}: is there already; use the key by --key {path}") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror or error}); name another by --new-key"
        ) from error
    return public
