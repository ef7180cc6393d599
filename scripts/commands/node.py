"""`trfmoe node`: what the owner of a node sees of it and changes about it."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import JsonOption

node = typer.Typer(help="A node's own view: its rounds, its key, whom it trusts. For its owner.", no_args_is_help=True)
NodeArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The node's folder.")]


@node.command()
def rotate(directory: NodeArgument, as_json: JsonOption = False) -> None:
    """Make a new key for this node; it is in use as soon as the operator has registered it."""
    from scripts.deploy.lifecycle.node_key import make_new_key
    from scripts.terminal.output import Output

    output = Output(as_json)
    public = make_new_key(directory)
    output.line(f"{public}: send it to the operator, who runs: trfmoe deploy rotate DIR --node NAME --key next.pub")
    output.result({"outcome": "made", "public_key": str(public), "exit_code": 0})


@node.command()
def trust(
    directory: NodeArgument,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The coordinator's ca.crt.")],
    anew: Annotated[bool, typer.Option("--anew", help="Even if it holds no authority that is trusted so far.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Trust the authorities of a file and no others; compare the fingerprints with the operator's by telephone."""
    from scripts.deploy.lifecycle.authority import trust as trust_authorities
    from scripts.terminal.output import Output

    output = Output(as_json)
    fingerprints = trust_authorities(directory, source, anew=anew)
    for fingerprint in fingerprints:
        output.line(f"trusted: SHA-256 {fingerprint}")
    output.line("a SuperNode that is running takes them into use by itself when it needs them")
    output.result({"outcome": "trusted", "fingerprints": fingerprints, "exit_code": 0})


@node.command()
def status(directory: NodeArgument, as_json: JsonOption = False) -> None:
    """Show what this node did: its rounds, its loss, what the votes made of its updates, and what left this machine."""
    from scripts.deploy.lifecycle.node_view import KNOWN, run_text, view_node
    from scripts.terminal.output import Output, one_line

    output = Output(as_json)
    view = view_node(directory)
    output.line(f"node {view.name}: {KNOWN[view.registration]}")
    shown = []
    for run in view.runs:
        size = view.sizes.get(run.run_id, 0)
        output.line(one_line(run_text(run, size, view.progress.get(run.run_id))))
        if heads := view.heads.get(run.run_id):
            output.line(one_line(f"  the coordinator's journal as noted here: {heads}"))
        shown.append(
            {
                "run_id": run.run_id,
                "name": run.name,
                "rounds": sorted(run.rounds),
                "loss": run.loss,
                "bits_per_byte": run.bits_per_byte,
                "accepted": sorted(run.accepted),
                "outvoted": {str(number): blocks for number, blocks in sorted(run.outvoted.items())},
                "bytes_sent": run.bytes,
                "bytes_kept": size,
                "heads": str(heads) if heads else None,
            }
        )
    if not shown:
        output.line("it has taken part in no run yet")
    output.result(
        {"outcome": "listed", "node": view.name, "registration": view.registration, "runs": shown, "exit_code": 0}
    )


@node.command()
def metrics(
    directory: NodeArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: a free one.")] = 9465,
) -> None:
    """Serve this node's figures for its owner's Prometheus, to this machine alone, until Ctrl-C."""
    from scripts.deploy.lifecycle.node_metrics import ADDRESS, serve_node
    from scripts.terminal.output import Output

    output = Output()
    server, thread = serve_node(directory, port)
    output.line(f"{directory}: http://{ADDRESS}:{server.server_port}/metrics    Ctrl-C ends it; the node goes on")
    try:
        thread.join()
    except KeyboardInterrupt:
        output.line("the figures are no longer served; the node is left as it is")
    finally:
        server.shutdown()
        server.server_close()


@node.command()
def clean(
    directory: NodeArgument,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or their first characters.")],
    as_json: JsonOption = False,
) -> None:
    """Delete what this node keeps to go on with runs; a run that goes on all the same starts its optimizer anew."""
    from scripts.deploy.lifecycle.node_view import clean_node, megabytes
    from scripts.terminal.output import Output

    output = Output(as_json)
    freed = clean_node(directory, runs)
    for run_id, size in freed.items():
        output.line(f"run {run_id[:8]}: {megabytes(size)} freed; its notes are kept")
    output.result({"outcome": "cleaned", "freed": freed, "exit_code": 0})
