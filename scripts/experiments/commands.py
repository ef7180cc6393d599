"""`trfmoe drill`, `trfmoe bench witness` and `trfmoe bench wire --loss`: they train many small federations."""

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JsonOption, SetOption

if TYPE_CHECKING:
    from scripts.experiments.drill import DrillStudy
    from scripts.experiments.store import Store
    from trfmoe_core.config import Recipe

SAMPLE = Path("data/sample")
RESULTS = Path("docs/results/drill.md")
MAX_JOBS = 64
DRILL_QUICK_SETTINGS = ["rounds.num_rounds=4", "rounds.local_steps=15"]
WITNESS_QUICK_SETTINGS = ["rounds.num_rounds=4", "data.evaluation_tokens=8192"]
WITNESS_QUICK_FAULTS = "none,sign_flip,scale_x100,ascent"


def _list_attacks(wanted: bool) -> None:
    if not wanted:
        return
    from clients.drills.attack import all_attacks
    from scripts.terminal.output import Output

    output = Output()
    for attack in all_attacks():
        about = attack.about.replace("{factor:g}", "FACTOR").replace("{delay_s:g}", "DELAY_S")
        output.line(f"{attack.name:<15}{attack.needs:<10}it {about}")
    raise typer.Exit


ListOption = Annotated[
    bool,
    typer.Option("--list", callback=_list_attacks, is_eager=True, help="List every attack, and what it needs."),
]


def drill(
    config: Annotated[Path, typer.Argument(help="Recipe, such as configs/drill.yaml.")],
    nodes: Annotated[str, typer.Option(help="Numbers of nodes.")] = "3,7,9",
    attacks: Annotated[str, typer.Option(help="Only these faults, by their names in the table or in --list.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds of majority; the other rules have one.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A few cells in less than a minute.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Cells at a time, one thread each.")] = 2,
    processes: Annotated[
        bool, typer.Option("--processes", help="Kill, stop and cut off real processes instead; --attacks names some.")
    ] = False,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
    list_attacks: ListOption = False,
) -> None:
    """Train a small model with every fault and every vote, and write what is lost into docs/results/drill.md."""
    from scripts.experiments.runner import conduct, parse_names, parse_node_counts
    from scripts.run.preflight import find_recipe
    from scripts.terminal.output import Output
    from trfmoe_core.atomic import write_text
    from trfmoe_core.config import load_recipe

    output = Output(as_json)
    chosen = parse_names(attacks)
    if processes:
        from scripts.process_drill.play import run_process_drill

        raise typer.Exit(run_process_drill(find_recipe(config), overrides, chosen, quick, output))
    settings = [*(DRILL_QUICK_SETTINGS if quick else []), *overrides]
    recipe = load_recipe(find_recipe(config), settings).resolved(Path.cwd())
    counts = [3] if quick else parse_node_counts(nodes)
    with _drill_study(recipe, counts, chosen, 1 if quick else seeds, quick) as (study, store):
        results = conduct(study, store, jobs, output)
    table = study.markdown(results)
    for line in table:
        output.line(line)
    if not quick and not attacks:
        write_text(RESULTS, "\n".join([*study.preface(results), *table]) + "\n")
        output.line(f"\nwritten to {RESULTS}")
    told = study.payload(results)
    code = 0 if told["ended"] else 1
    output.result({"outcome": "completed" if told["ended"] else "failed", **told, "exit_code": code})
    raise typer.Exit(code)


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
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Processes, one thread each.")] = 1,
    cells: Annotated[str, typer.Option(metavar="DIR", help="Keep results here, and go on from there.")] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Write the table here.")] = "",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Train a small model on one domain a node, with and without attackers, and show what each vote makes of it."""
    from scripts.experiments.faults import find_fault
    from scripts.experiments.memory_federation import check_fault
    from scripts.experiments.runner import conduct, parse_names, parse_node_counts
    from scripts.experiments.store import Store
    from scripts.experiments.witness import FAULTS, RULES, WitnessStudy, make_recipe
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


def wire_loss(texts: Sequence[str], seeds: int, rounds: int, steps: int, as_json: bool) -> None:
    """Compares the held-out losses of whole runs by every way to travel.

    Args:
        texts: Files and folders to learn; the sample when empty.
        seeds: Number of paired seeds.
        rounds: Rounds of a run.
        steps: Local steps of a round.
        as_json: Whether to print one JSON object as the last line.
    """
    from scripts.experiments.federation import deal_text, read_pieces
    from scripts.experiments.runner import conduct
    from scripts.experiments.store import Store
    from scripts.experiments.wire_loss import LIMIT, NODES, RECIPE, WireLossStudy
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


@contextmanager
def _drill_study(
    recipe: "Recipe", counts: Sequence[int], faults: Sequence[str], seeds: int, quick: bool
) -> "Iterator[tuple[DrillStudy, Store]]":
    """Yields the study, with the nodes' texts dealt out, and where its results are kept; nowhere when `quick`."""
    import hashlib
    import shutil

    from clients.settings import cache_folder
    from scripts.experiments.drill import QUICK_FAULTS, RULES, DrillStudy
    from scripts.experiments.faults import find_fault
    from scripts.experiments.federation import deal_text, read_pieces
    from scripts.experiments.store import Store
    from trfmoe_core.config import NodeSettings
    from trfmoe_core.data.sample.owners import build_sample
    from trfmoe_core.places import cache_home

    names = [find_fault(name).name for name in faults] or (list(QUICK_FAULTS) if quick else [])
    sample = SAMPLE.absolute()
    sources = sorted({path for node in recipe.nodes for path in node.data if isinstance(path, str)}) or [str(sample)]
    if any(Path(path).is_relative_to(sample) for path in sources):
        build_sample(sample)
    pieces = read_pieces(sources, cache_folder(NodeSettings(name="drill", data=[*sources])))
    # The cells have nodes and folders of their own.
    inputs = recipe.model_copy(update={"nodes": [], "run_root": ""}).model_dump(mode="json")
    text = hashlib.sha256("\0".join(pieces).encode()).hexdigest()
    with tempfile.TemporaryDirectory(prefix="trfmoe-drill-") as temporary:
        store = Store(Path(temporary) if quick else cache_home() / "drill", [inputs, text])
        rules = RULES if not quick else ("majority", "mean")
        study = DrillStudy(recipe=recipe, folder=store.folder, counts=counts, faults=names, seeds=seeds, rules=rules)
        deal_text(pieces, counts, study.texts)
        yield study, store
        shutil.rmtree(study.answers, ignore_errors=True)


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
