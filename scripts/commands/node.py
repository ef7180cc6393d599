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
    output.line("a SuperNode that is running uses them from its next start on")
    output.result({"outcome": "trusted", "fingerprints": fingerprints, "exit_code": 0})
