"""`trfmoe bench`: measures speed and memory on this machine, each in a process of its own, and studies of many runs."""

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from scripts.bench import child
from scripts.terminal.options import JobsOption, JsonOption, SetOption
from trfmoe_core.errors import ConfigError

SAMPLE = Path("data/sample")
WITNESS_QUICK_SETTINGS = ["rounds.num_rounds=4", "data.evaluation_tokens=8192"]
WITNESS_QUICK_FAULTS = "none,sign_flip,scale_x100,ascent"

bench = typer.Typer(help="Measure this machine.", no_args_is_help=True)


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
        compare_transports(text or [], seeds, rounds, 25, as_json)
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
def scale(
    quick: Annotated[bool, typer.Option("--quick", help="Only 10 and 100 nodes: under a minute.")] = False,
    unheld: Annotated[str, typer.Option(help="What nodes do with experts that they do not hold.")] = "absent",
    as_json: JsonOption = False,
) -> None:
    """Measure what a round of 10, 100, 300 and 1,000 nodes costs the coordinator, and how each quantity grows."""
    if unheld not in ("train", "freeze", "absent"):
        raise ConfigError(f"--unheld {unheld}: choose from train, freeze and absent")
    _run("scale", quick=quick, unheld=unheld, as_json=as_json)


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


@bench.command()
def witness(
    ctx: typer.Context,
    data: Annotated[
        list[str], typer.Option(metavar="PATH", help="A domain's text, one option each; the sample's when absent.")
    ] = [],  # noqa: B006
    nodes: Annotated[str, typer.Option(help="Numbers of nodes.")] = "3,4,9",
    rules: Annotated[str, typer.Option(help="Of witness, graph and mean.")] = "witness,graph,mean",
    attacks: Annotated[str, typer.Option(help="Only these, by their names in the table; none is one.")] = "",
    liars: Annotated[str, typer.Option(help="Nodes; a plus makes them attackers of one run.")] = "n0,n0+n1",
    witness_domains: Annotated[str, typer.Option(help="Stems of the files that the witness knows; all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Three nodes, one seed, few rounds: under a minute.")] = False,
    jobs: JobsOption = 1,
    cells: Annotated[str, typer.Option(metavar="DIR", help="Keep results here, and go on from there.")] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Write the table here.")] = "",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Train a small model on one domain a node, with and without attackers, and show what each vote makes of it."""
    from scripts.experiments.cell_in_memory import check_fault
    from scripts.experiments.faults import find_fault
    from scripts.experiments.runner import conduct, parse_names, parse_node_counts
    from scripts.experiments.store import Store
    from scripts.experiments.studies.witness import FAULTS, RULES, WitnessStudy, make_recipe
    from scripts.terminal.output import Output
    from trfmoe_core.atomic import write_text
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if quick:
        nodes, rules, liars, seeds, attacks = "3", "witness,graph", "n0", 1, attacks or WITNESS_QUICK_FAULTS
    if unknown := [name for name in parse_names(rules) if name not in RULES]:
        raise ConfigError(f"--rules: {unknown[0]!r} is none of {', '.join(RULES)}")
    study = WitnessStudy(
        recipe=make_recipe([*(WITNESS_QUICK_SETTINGS if quick else []), *overrides]),
        files=[str(Path(file).absolute()) for file in data] or _sample_domains(),
        counts=parse_node_counts(nodes),
        rules=parse_names(rules),
        faults=[find_fault(name).name for name in parse_names(attacks)] or list(FAULTS),
        attackers=[tuple(sorted(entry.split("+"))) for entry in parse_names(liars)],
        judged_by=parse_names(witness_domains),
        seeds=seeds,
    )
    for name in study.faults:
        check_fault(name)
    with tempfile.TemporaryDirectory(prefix="trfmoe-witness-") as temporary:
        results = conduct(study, Store(Path(cells or temporary), study.inputs()), jobs, output)
    table = [*study.preface(_shown_command(ctx)), *study.markdown(results)]
    output.line("\n".join(["", *table]))
    if out:
        write_text(Path(out), "\n".join(table) + "\n")
        output.line(f"\nwritten to {out}")
    output.result({"outcome": "completed", **study.payload(results), "exit_code": 0})


@bench.command()
def pdf(
    folder: Annotated[str, typer.Argument(help="Folder with PDFs; every folder in it is a collection.")],
    against: Annotated[str, typer.Option(help="Program to compare with: pdftotext.")] = "pdftotext",
    engines: Annotated[str, typer.Option(help="PDF engines, with commas between them.")] = "auto,pdfium,pypdf",
    as_json: JsonOption = False,
) -> None:
    """Compare the text of PDFs with another program's, by collection and engine, and time the engines."""
    if against != "pdftotext":
        raise ConfigError(f"--against {against}: only pdftotext is known")
    chosen = [name.strip() for name in engines.split(",")]
    unknown = [name for name in chosen if name not in ("auto", "pdfium", "pypdf")]
    if unknown:
        raise ConfigError(f"--engines {unknown[0]}: choose from auto, pdfium and pypdf")
    _run("pdf", folder=folder, against=against, engines=chosen, as_json=as_json)


def _run(name: str, **options: object) -> None:
    code = child.run(f"scripts.bench.{name}:main", **options)
    if code:
        raise typer.Exit(code if code > 0 else 1)


def compare_transports(texts: Sequence[str], seeds: int, rounds: int, steps: int, as_json: bool) -> None:
    """Compares the held-out losses of whole runs by every way to travel.

    Args:
        texts: Files and folders to learn; the sample when empty.
        seeds: Number of paired seeds.
        rounds: Rounds of a run.
        steps: Local steps of a round.
        as_json: Whether to print one JSON object as the last line.
    """
    from scripts.experiments.cell_training import deal_text, read_pieces
    from scripts.experiments.runner import conduct
    from scripts.experiments.store import Store
    from scripts.experiments.studies.wire_loss import LIMIT, NODES, RECIPE, WireLossStudy
    from scripts.terminal.output import Output
    from trfmoe_core.config import Recipe
    from trfmoe_core.data.sample.owners import build_sample

    output = Output(as_json)
    recipe = Recipe.model_validate({**RECIPE, "rounds": {"num_rounds": rounds, "local_steps": steps}})
    with tempfile.TemporaryDirectory(prefix="trfmoe-loss-") as temporary:
        folder = Path(temporary)
        if not texts:
            build_sample(folder / "sample")
            texts = [str(folder / "sample")]
        deal_text(read_pieces(texts, folder / "texts" / "cache"), [NODES], folder / "texts")
        study = WireLossStudy(recipe=recipe, folder=folder, seeds=seeds)
        result = study.payload(conduct(study, Store(folder, "loss"), 1, output))
    for way, mean in result["loss_ratio_mean"].items():
        output.line(f"{way:<33} loss over float32's: mean {mean:.4f}, worst seed {max(result['loss_ratios'][way]):.4f}")
    output.line(f"at most {LIMIT}: {'reached' if result['reached'] else 'MISSED'}")
    output.result({"outcome": "completed", **result, "exit_code": 0})


def _sample_domains() -> list[str]:
    from trfmoe_core.data.sample.owners import build_sample

    build_sample(SAMPLE)
    return sorted(str(folder.absolute()) for folder in SAMPLE.iterdir() if folder.is_dir())


def _shown_command(ctx: typer.Context) -> str:
    """Returns the command line without folders: where texts and results lie on this machine is nobody's business."""
    shown = []
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if value in (None, parameter.get_default(ctx)) or parameter.name == "as_json":
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            is_path = parameter.name in ("data", "cells", "out")
            shown += [parameter.opts[0], *([] if one is True else [Path(one).name if is_path else str(one)])]
    return f"{ctx.command_path} {shlex.join(shown)}".strip()
