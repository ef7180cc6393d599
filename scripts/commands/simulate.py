"""`trfmoe simulate`: a federation on this machine, on Flower's simulation engine."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import (
    AllOption,
    DryRunOption,
    JsonOption,
    PdfsOption,
    ResumeOption,
    RunDirOption,
    SetOption,
)


def simulate(
    config: Annotated[
        Path | None, typer.Argument(help="Recipe, such as configs/demo.yaml; not needed with --run-dir.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    pdfs: PdfsOption = [],  # noqa: B006
    resume: ResumeOption = False,
    run_dir: RunDirOption = None,
    dry_run: DryRunOption = False,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a federation on this machine: nodes, voting, checkpoints, report."""
    from scripts.run.dry_run import show_dry_run
    from scripts.run.federated_run import resolve, run_federation
    from scripts.terminal.output import Output
    from trfmoe_core.config import check_federated

    output = Output(as_json)
    recipe = resolve(config, overrides, pdfs, run_dir)
    check_federated(recipe, str(config or run_dir), overrides)
    if dry_run:
        show_dry_run(recipe, output, everything)
        return
    outcome = run_federation(recipe, output, resume=resume, run_dir=run_dir)
    output.result(outcome.payload())
    raise typer.Exit(outcome.exit_code)
