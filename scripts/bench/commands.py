"""`trfmoe bench`: measures votes, memory, training steps and data on this machine, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from scripts.simulate import JsonOption, SetOption

bench = typer.Typer(help="Measure this machine.", no_args_is_help=True)


@bench.command()
def vote(
    megabytes: Annotated[float, typer.Option(min=0.001, max=1000, help="Size of one float32 replica.")] = 100.0,
    groups: Annotated[int, typer.Option(min=1, help="Groups of repetitions; the best one counts.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Time votes on three replicas, ours and Flower's, as multiples of what copying memory takes."""
    _run("scripts.bench.vote", ["--megabytes", str(megabytes), "--groups", str(groups)], as_json)


@bench.command()
def model(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions, nothing compiled.")] = False,
    cuda_only: Annotated[bool, typer.Option("--cuda-only", help="Leave the CPU part out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Time training steps, ours, of a dense model and of transformers' Mixtral."""
    _run("scripts.bench.model", ["--quick"] * quick + ["--cuda-only"] * cuda_only, as_json)


@bench.command()
def memory(
    nodes: Annotated[str, typer.Option(help="Numbers of nodes.")] = "3,9,30",
    width: Annotated[int, typer.Option(min=8, help="Width of the model; 288 is about 100 MB.")] = 288,
) -> None:
    """Measure the coordinator's anonymous memory while it votes, in float32 and in int8; one JSON object a case."""
    for transport in ("float32", "int8"):
        for count in nodes.split(","):
            options = ["--nodes", count.strip(), "--width", str(width), "--transport", transport]
            _run("scripts.bench.memory", options, False)


@bench.command()
def wire(
    loss: Annotated[bool, typer.Option("--loss", help="Measure the held-out loss of whole runs instead.")] = False,
    text: Annotated[list[str] | None, typer.Option(help="With --loss: file or folder to learn.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --loss: paired runs.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="With --loss: rounds of 25 steps.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Count the bytes of a round by every way to travel, time the codec, or compare the losses of whole runs."""
    if not loss:
        _run("scripts.bench.wire", [], as_json)
        return
    chosen = [part for path in text or [] for part in ("--text", path)]
    _run("scripts.bench.wire_loss", [*chosen, "--seeds", str(seeds), "--rounds", str(rounds)], as_json)


@bench.command()
def federation(
    megabytes: Annotated[str, typer.Option(help="Sizes of the model in float32.")] = "200,500",
    transport: Annotated[str, typer.Option(help="How blocks travel: int8, float32, or both with a comma.")] = "int8",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first one does not count.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Local steps a round.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Run three nodes as real processes: memory of each kind, and the owner of every second of a round."""
    options = ["--megabytes", megabytes, "--transport", transport, "--rounds", str(rounds), "--steps", str(steps)]
    _run("scripts.bench.federation", options, as_json)


@bench.command()
def data(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pages.")] = False,
    engine: Annotated[str, typer.Option(help="PDF engine: pypdf, pdfium, or auto.")] = "pypdf",
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer folder or name; without it one is trained on the text.")
    ] = None,
    hostile: Annotated[
        bool, typer.Option("--hostile", help="Instead, read 2,000 files with every trap: what became of them, memory.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Time the way from files to batches: PDF pages and tokens a second on one core and on all, waits for batches."""
    if hostile:
        _run("scripts.bench.hostile", [], as_json)
        return
    own = ["--tokenizer", tokenizer] if tokenizer else []
    _run("scripts.bench.data", ["--quick"] * quick + ["--engine", engine, *own], as_json)


@bench.command()
def witness(
    data: Annotated[
        list[str], typer.Option(metavar="PATH", help="A domain's text, one option each; the sample's when absent.")
    ] = [],  # noqa: B006
    nodes: Annotated[str, typer.Option(help="Numbers of nodes.")] = "3,4,9",
    rules: Annotated[str, typer.Option(help="Of witness, graph and mean.")] = "witness,graph,mean",
    attacks: Annotated[str, typer.Option(help="Only these, by their names in the table; none is one.")] = "",
    liars: Annotated[str, typer.Option(help="Nodes; a plus makes them liars of one run.")] = "n0,n0+n1",
    witness_domains: Annotated[str, typer.Option(help="Stems of the files that the witness knows; all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Three nodes, one seed, few rounds: under a minute.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes, one thread each.")] = 1,
    cells: Annotated[str, typer.Option(metavar="DIR", help="Keep results here, and go on from there.")] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Write the table here.")] = "",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Train a small model on one domain a node, with and without liars, and show what each vote makes of it."""
    options = [part for path in data for part in ("--data", path)]
    options += [part for setting in overrides for part in ("--set", setting)]
    plain = {"nodes": nodes, "rules": rules, "attacks": attacks, "liars": liars, "witness-domains": witness_domains}
    plain |= {"seeds": str(seeds), "jobs": str(jobs), "cells": cells, "out": out}
    usual = {"nodes": "3,4,9", "rules": "witness,graph,mean", "liars": "n0,n0+n1", "seeds": "2", "jobs": "1"}
    for name, value in plain.items():
        options += [f"--{name}", value] if value and value != usual.get(name) else []
    _run("scripts.bench.witness", [*options, *["--quick"] * quick], as_json)


def _run(module: str, options: list[str], as_json: bool) -> None:
    # The libraries read the number of their threads when they are loaded, so it must be set before.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-m", module, *options, *["--json"] * as_json]
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 1)
