"""`trfmoe verify`: is a run folder still what the run wrote?"""

from pathlib import Path
from typing import Annotated

import typer

from scripts.simulate import JsonOption


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/demo-001.")], as_json: JsonOption = False
) -> None:
    """Check a run's journal and checkpoints offline; names the first entry that is broken."""
    from scripts.output import Output
    from scripts.run_folders import run_folder
    from server.verify import verify_run

    output = Output(as_json)
    found = verify_run(run_folder(run))
    for problem in found.problems:
        output.line(f"BROKEN {problem}", style="bold red")
    if not found.problems:
        rounds = ", ".join(map(str, found.checkpoints)) or "none"
        output.line(f"ok: {found.events} entries in an unbroken chain, checkpoints of rounds {rounds} as committed")
    code = 1 if found.problems else 0
    output.result(
        {
            "outcome": "broken" if found.problems else "ok",
            "events": found.events,
            "checkpoints": found.checkpoints,
            "problems": found.problems,
            "exit_code": code,
        }
    )
    raise typer.Exit(code)
