"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as rounds.num_rounds=3."),
]
PdfsOption = Annotated[
    list[Path],
    typer.Option("--pdfs", metavar="DIR", help="Train on these files instead: one DIR a node, or one DIR dealt out."),
]
JobsOption = Annotated[int, typer.Option(min=1, max=64, help="Cells trained at a time, one thread each.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the latest run of this recipe.")]
RunDirOption = Annotated[
    Path | None, typer.Option("--run-dir", metavar="DIR", help="Go on with the run of this folder.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check recipe, tokenizer and data, show what differs from the defaults, stop.")
]
AllOption = Annotated[bool, typer.Option("--all", help="With --dry-run: show the defaults too.")]
