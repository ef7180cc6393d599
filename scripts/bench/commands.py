"""`trfmoe bench`: measures votes, memory, training steps and data on this machine, each in a process of its own."""

from typing import Annotated

import typer

from scripts.bench import child
from scripts.experiments.commands import wire_loss, witness
from scripts.terminal.options import JsonOption
from trfmoe_core.errors import ConfigError

bench = typer.Typer(help="Measure this machine.", no_args_is_help=True)
bench.command()(witness)


@bench.command()
def vote(
    megabytes: Annotated[float, typer.Option(min=0.001, max=1000, help="Size of one float32 replica.")] = 100.0,
    groups: Annotated[int, typer.Option(min=1, help="Groups of repetitions; the best one counts.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Time votes on three replicas, ours and Flower's, as multiples of what copying memory takes."""
    _run("vote", megabytes=megabytes, groups=groups, as_json=as_json)


@bench.command()
def model(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions, nothing compiled.")] = False,
    cuda_only: Annotated[bool, typer.Option("--cuda-only", help="Leave the CPU part out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Time training steps, ours, of a dense model and of transformers' Mixtral."""
    _run("model", quick=quick, cuda_only=cuda_only, as_json=as_json)


@bench.command()
def memory(
    nodes: Annotated[str, typer.Option(help="Numbers of nodes.")] = "3,9,30",
    width: Annotated[int, typer.Option(min=8, help="Width of the model; 288 is about 100 MB.")] = 288,
) -> None:
    """Measure the coordinator's anonymous memory while it votes, in float32 and in int8; one JSON object a case."""
    counts = nodes.split(",")
    if not all(count.strip().isdigit() for count in counts):
        raise ConfigError(f"--nodes {nodes}: give numbers, such as 3,9,30")
    for transport in ("float32", "int8"):
        for count in counts:
            _run("memory", num_nodes=int(count), width=width, transport=transport)


@bench.command()
def wire(
    loss: Annotated[bool, typer.Option("--loss", help="Measure the held-out loss of whole runs instead.")] = False,
    text: Annotated[list[str] | None, typer.Option(help="With --loss: file or folder to learn.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --loss: paired runs.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="With --loss: rounds of 25 steps.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Count the bytes of a round by every way to travel, time the codec, or compare the losses of whole runs."""
    if loss:
        wire_loss(text or [], seeds, rounds, 25, as_json)
    else:
        _run("wire", as_json=as_json)


@bench.command()
def federation(
    megabytes: Annotated[str, typer.Option(help="Sizes of the model in float32.")] = "200,500",
    transport: Annotated[str, typer.Option(help="How blocks travel: int8, float32, or both with a comma.")] = "int8",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first one does not count.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Local steps a round.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Run three nodes as real processes: memory of each kind, and the owner of every second of a round."""
    _run("federation", megabytes=megabytes, transport=transport, rounds=rounds, steps=steps, as_json=as_json)


@bench.command()
def data(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pages.")] = False,
    engine: Annotated[str, typer.Option(help="PDF engine: auto, pdfium, or pypdf.")] = "auto",
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer folder or name; without it one is trained on the text.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the way from files to batches: PDF pages and tokens a second on one core and on all, waits for batches."""
    _run("data", quick=quick, engine=engine, tokenizer=tokenizer, as_json=as_json)


def _run(name: str, **options: object) -> None:
    code = child.run(f"scripts.bench.{name}:main", **options)
    if code:
        raise typer.Exit(code if code > 0 else 1)
