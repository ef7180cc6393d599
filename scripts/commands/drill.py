"""`trfmoe drill`: plays faults and attacks against federations in one process, or against real processes."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JobsOption, JsonOption, SetOption

if TYPE_CHECKING:
    from scripts.experiments.store import Store
    from scripts.experiments.studies.drill import DrillStudy
    from trfmoe_core.config import Recipe

SAMPLE = Path("data/sample")
RESULTS = Path("docs/results/drill.md")
DRILL_QUICK_SETTINGS = ["rounds.num_rounds=4", "rounds.local_steps=15"]


def _list_attacks(wanted: bool) -> None:
    if not wanted:
        return
    from clients.attacks.base import all_attacks
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
    jobs: JobsOption = 2,
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


@contextmanager
def _drill_study(
    recipe: "Recipe", counts: Sequence[int], faults: Sequence[str], seeds: int, quick: bool
) -> "Iterator[tuple[DrillStudy, Store]]":
    """Yields the study, with the nodes' texts dealt out, and where its results are kept; nowhere when `quick`."""
    import hashlib
    import shutil

    from clients.settings import cache_folder
    from scripts.experiments.cell_training import deal_text, read_pieces
    from scripts.experiments.faults import find_fault
    from scripts.experiments.store import Store
    from scripts.experiments.studies.drill import QUICK_FAULTS, RULES, DrillStudy
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
