"""`trfmoe drill`: faults times attacks on a small model that really trains, and what each vote makes of them."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.simulate import JsonOption, SetOption

if TYPE_CHECKING:
    from scripts.drill.cell import Cell, CellResult
    from scripts.drill.store import Store
    from scripts.drill.table import Row
    from scripts.output import Output
    from trfmoe_core.config import Recipe

SAMPLE = Path("data/sample")
RESULTS = Path("docs/results/drill.md")
MAX_JOBS = 2
QUICK_SETTINGS = ["rounds.num_rounds=4", "rounds.local_steps=15"]


def drill(
    config: Annotated[Path, typer.Argument(help="Recipe, such as configs/drill.yaml.")],
    nodes: Annotated[str, typer.Option(help="Numbers of nodes.")] = "3,7,9",
    attacks: Annotated[str, typer.Option(help="Only these faults, by their names in the table.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds of majority; the other rules have one.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A few cells in less than a minute.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Cells at a time, one thread each.")] = MAX_JOBS,
    processes: Annotated[
        bool, typer.Option("--processes", help="Kill, stop and cut off real processes instead; --attacks names some.")
    ] = False,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Train a small model with every fault and every vote, and write what is lost into docs/results/drill.md."""
    from scripts.drill.faults import QUICK
    from scripts.drill.table import markdown, payload, table
    from scripts.output import Output
    from scripts.preflight import find_recipe
    from trfmoe_core.atomic import write_text
    from trfmoe_core.config import load_recipe

    output = Output(as_json)
    if processes:
        from scripts.drill.processes import run_process_drill

        chosen = [part.strip() for part in attacks.split(",") if part.strip()]
        raise typer.Exit(run_process_drill(find_recipe(config), overrides, chosen, quick, output))
    settings = [*(QUICK_SETTINGS if quick else []), *overrides]
    recipe = load_recipe(find_recipe(config), settings).resolved(Path.cwd())
    counts = [3] if quick else _counts(nodes)
    names = _names(attacks) or (list(QUICK) if quick else [])
    cells = plan(counts, names, 1 if quick else seeds, 2 if quick else 3)
    output.line(f"{len(cells)} cells with {', '.join(map(str, counts))} nodes, {jobs} at a time")
    with _store(recipe, counts, fresh=quick) as store:
        results = store.load(cells)
        if results:
            output.line(f"{len(results)} of them ended in an earlier drill of this recipe, text and code")
        for result in run_cells(recipe, [cell for cell in cells if cell not in results], store, jobs):
            results[result.cell] = result
            store.save(result)
            show(result, len(results), len(cells), output)
        store.forget_answers()
    rows = table(results)
    for line in markdown(rows):
        output.line(line)
    if not quick and not attacks:
        write_text(RESULTS, "\n".join([*_preface(recipe, seeds, rows), *markdown(rows)]) + "\n")
        output.line(f"\nwritten to {RESULTS}")
    told = payload(results)
    code = 0 if told["ended"] else 1
    output.result({"outcome": "completed" if told["ended"] else "failed", **told, "exit_code": code})
    raise typer.Exit(code)


def plan(counts: Sequence[int], names: Sequence[str], seeds: int, rules: int = 3) -> "list[Cell]":
    """Returns the cells to run, those that others are compared with first, then large federations before small ones.

    Args:
        counts: Numbers of nodes.
        names: Faults; all when empty.
        seeds: Of `majority`. The other rules are there to show what is lost, and have one.
        rules: 3, or 2 to leave out the median.
    """
    from scripts.drill.cell import Cell
    from scripts.drill.faults import CLEAN, faults_for
    from scripts.drill.table import RULES, reference

    wanted: dict[Cell, None] = {}
    for count in sorted(counts, reverse=True):
        for fault in faults_for(count):
            if names and fault.name not in names:
                continue
            for rule in (RULES if rules == 3 else ("majority", "mean")) if fault.everywhere else RULES[:1]:
                repeated = rule == "majority" or fault == CLEAN
                for seed in range(seeds if repeated else 1):
                    wanted[Cell(nodes=count, fault=fault.name, rule=rule, seed=seed)] = None
    references = {reference(cell): None for cell in wanted}
    return list(references | wanted)


def run_cells(recipe: "Recipe", cells: "Sequence[Cell]", store: "Store", jobs: int) -> "Iterator[CellResult]":
    """Yields the results of the cells as they come, from `jobs` processes of one thread each."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    from scripts.drill.cell import run_cell

    if not cells:
        return
    jobs = min(jobs, os.cpu_count() or 1, len(cells))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        waiting = [pool.submit(run_cell, recipe, cell, store.texts, store.memory) for cell in cells]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def show(result: "CellResult", number: int, total: int, output: "Output") -> None:
    """Writes one line about a cell that has ended."""
    cell = result.cell
    loss = sum(result.losses.values()) / len(result.losses) if result.losses else float("nan")
    end = "" if result.ended else f", did not end: {result.reason}"
    output.line(
        f"[{number}/{total}] {cell.nodes} nodes, {cell.fault}, {cell.rule}, seed {cell.seed}: "
        f"loss {loss:.4f}, {result.seconds:.1f} s{end}"
    )


def _quiet() -> None:
    """Prepares a process of the pool: one thread, and no log of the faults that are played on purpose."""
    import logging

    import torch

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)


@contextmanager
def _store(recipe: "Recipe", counts: Sequence[int], *, fresh: bool) -> "Iterator[Store]":
    """Yields the drill's folder in the cache; a new one that vanishes again when `fresh`."""
    from clients.node import cache_folder
    from scripts.drill.cell import read_pieces
    from scripts.drill.store import Store
    from trfmoe_core.config import NodeSettings
    from trfmoe_core.data.sample.owners import build_sample
    from trfmoe_core.places import cache_home

    sample = SAMPLE.absolute()
    sources = sorted({path for node in recipe.nodes for path in node.data if isinstance(path, str)}) or [str(sample)]
    if any(Path(path).is_relative_to(sample) for path in sources):
        build_sample(sample)
    pieces = read_pieces(sources, cache_folder(NodeSettings(name="drill", data=[*sources])))
    with tempfile.TemporaryDirectory(prefix="trfmoe-drill-") as temporary:
        yield Store(Path(temporary) if fresh else cache_home() / "drill", recipe, pieces, counts)


def _counts(text: str) -> list[int]:
    from trfmoe_core.errors import ConfigError

    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = [0]
    if min(counts) < 3 or max(counts) > 99:
        raise ConfigError(f"--nodes {text}: give numbers from 3 to 99, such as 3,7,9")
    return counts


def _names(text: str) -> list[str]:
    from scripts.drill.faults import FAULTS
    from trfmoe_core.errors import ConfigError

    names = [part.strip().replace("_", " ") for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise ConfigError(f"--attacks: {unknown[0]!r} is none of {', '.join(FAULTS)}")
    return names


def _preface(recipe: "Recipe", seeds: int, rows: "Sequence[Row]") -> list[str]:
    from trfmoe_core.config import recipe_hash

    model, rounds = recipe.model, recipe.rounds
    return [
        "# The drill: faults times votes",
        "",
        "Written by `trfmoe drill`. Held-out loss of the honest nodes, as a multiple of the same nodes' loss in the",
        "run without faults under the plain mean; for a node that sends nothing that counts (crashes, silence, NaN,",
        "broken bytes) in the run without that node. `lost`: no model that an honest node could measure.",
        f"Majority: mean and range over {seeds} paired seeds; median and mean: one seed, except without faults.",
        "The last columns are of `majority`: in how many rounds the faulty node lost a vote or its reply was dropped",
        "or missing, how many blocks that cost it (the least over seeds), and the most that an honest node lost.",
        "",
        f"Model: {model.layers} layers, width {model.width}, {model.experts} experts a layer, top {model.top_k}; "
        f"{rounds.num_rounds} rounds of {rounds.local_steps} steps of {recipe.training.batch_size} x {model.context} "
        f"tokens; agreement.cosine {recipe.agreement.cosine:g}, margin {recipe.agreement.margin:g}; "
        f"recipe {recipe_hash(recipe)[:12]}.",
        f"Cells: {sum(len(row.ratios) for row in rows)}.",
    ]
