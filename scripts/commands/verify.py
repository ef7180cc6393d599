"""`trfmoe verify`: is a run folder still what the run wrote?"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JsonOption
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    from scripts.terminal.output import Output
    from server.run_folder.verify import Verification

UNSIGNED_CODE = 3
UNPROTECTED = (
    "without --key, --head or --heads: whoever can write the folder could have edited the last entry, cut entries off "
    "the end or written all of it anew, and nothing here would show it"
)


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/demo-001.")],
    key: Annotated[
        Path | None, typer.Option(metavar="PUBLIC", help="Public key that must have signed the journal.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="HASH", help="A head that this command or a node printed earlier.")
    ] = None,
    heads: Annotated[
        list[Path], typer.Option(metavar="FILE", help="A node's heads.jsonl, to compare; may be repeated.")
    ] = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Check a run's journal and checkpoints offline; names the first entry that is broken.

    Exit codes: 0 well, 1 broken, 3 unbroken but not signed by the given key, as a whole or in its newest entries.
    """
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.run_folder.noted_heads import read_noted_heads
    from server.run_folder.signatures import load_public_key
    from server.run_folder.verify import verify_run
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    folder = run_folder(run)
    if head is not None and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise ConfigError(f"--head {head[:80]}: give the 64 hexadecimal digits of a head")
    noted = [note for path in heads for note in read_noted_heads(path)]
    public = load_public_key(key) if key else None
    found = verify_run(folder, head=head, noted=noted, key=public)
    _tell(found, output)
    if not found.problems and not (key or head or heads):
        output.line(UNPROTECTED)
    outcome, code = ("broken", 1) if found.problems else ("unsigned", UNSIGNED_CODE) if found.unsigned else ("ok", 0)
    output.result(
        {
            "outcome": outcome,
            "events": found.events,
            "head": found.head,
            "finished": found.finished,
            "checkpoints": found.checkpoints,
            "signed": found.signed,
            "unsigned": found.unsigned,
            "problems": found.problems,
            "notes": found.notes,
            "exit_code": code,
        }
    )
    raise typer.Exit(code)


def _tell(found: "Verification", output: "Output") -> None:
    for problem in found.problems:
        output.line(f"BROKEN {problem}", style="bold red")
    if not found.problems:
        rounds = ", ".join(map(str, found.checkpoints)) or "none"
        output.line(
            f"ok: {counted(found.events, 'entry', 'entries')} in an unbroken chain, checkpoints of rounds "
            f"{rounds} as committed"
        )
    if found.unsigned:
        output.line(f"NOT SIGNED: {found.unsigned}", style="bold red")
    output.line(f"head {found.head} ({found.events} entries)")
    if not found.finished and found.events:
        output.line("unfinished: no run_finished follows the last run_started; it goes on, was stopped, or was cut")
    for note in found.notes:
        output.line(f"note: {note}")
