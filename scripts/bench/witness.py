"""Measures votes among nodes whose texts differ: `trfmoe bench witness [--data FILE ...]`.

One domain a node. A run with a liar is compared with the run in which it is absent, one without with the plain mean.
"""

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from scripts.bench.attacks import LIES
from scripts.bench.trials import Domain, Federation, Trial
from scripts.bench.witness_table import LISTED, Cell, line, markdown, payload
from scripts.output import Output
from strategies.voting import Agreement
from trfmoe_core.atomic import write_text
from trfmoe_core.config import Recipe, WitnessConfig, apply_overrides
from trfmoe_core.config.load import validate
from trfmoe_core.data.sample.owners import build_sample
from trfmoe_core.errors import ConfigError, TRFMoEError
from trfmoe_core.places import cache_home

RULES = ("witness", "graph", "mean")
ATTACKS = ("none", *LISTED, "stale_noisy", "late_sign", "one_expert")
PAIRED = ("sign", "stale", "ascent", "a_little")
"""What a pair of liars plays."""

RECIPE = {
    "model": {"layers": 2, "width": 64, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 96, "context": 64},
    "data": {"held_out": 0.2, "piece_bytes": 1024, "evaluation_tokens": 24576},
    "training": {"batch_size": 12, "learning_rate": 2e-3, "min_learning_rate": 2e-4, "device": "cpu"},
    "rounds": {"num_rounds": 8, "local_steps": 25},
}
QUICK = ["rounds.num_rounds=4", "data.evaluation_tokens=8192"]
SAMPLE = Path("data/sample")


def main(arguments: list[str] | None = None) -> None:
    """Runs the cells that are asked for and prints the table.

    Raises:
        ConfigError: a name that is none, or results of other settings in the way.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = _options(given)
    output = Output(options.json)
    torch.set_num_threads(1)
    files = [str(Path(file).absolute()) for file in options.data] or _sample()
    settings = [*(QUICK if options.quick else []), *options.set]
    recipes = {seed: _recipe(seed, settings) for seed in range(options.first_seed, options.first_seed + options.seeds)}
    started = time.monotonic()
    jobs = [(recipes[seed], files, count, options) for count in sorted(options.nodes, reverse=True) for seed in recipes]
    cells: list[Cell] = []
    for cell in _run(jobs, options.jobs):
        cells.append(cell)
        output.line(line(cell, cells))
    head = [
        f"Command: `trfmoe bench witness {shlex.join(_without_folders(given))}`.",
        f"Domains, in the order of the nodes: {', '.join(Path(file).stem for file in files)}.",
        _described(next(iter(recipes.values())), options.seeds),
    ]
    table = markdown(cells, head)
    output.line("\n".join(["", *table]))
    if options.out:
        write_text(Path(options.out), "\n".join(table) + "\n")
        output.line(f"\nwritten to {options.out}")
    told = {**payload(cells), "seconds": round(time.monotonic() - started, 1)}
    output.result({"outcome": "completed", **told, "exit_code": 0})


def _options(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", action="append", default=[], help="one domain each; the sample's when absent")
    parser.add_argument("--nodes", default="3,4,9")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--attacks", default="")
    parser.add_argument("--liars", default="n0,n0+n1", help="node names; a plus makes them liars of one run")
    parser.add_argument("--witness-domains", default="", help="stems of the files that the witness has text of")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe, e.g. witness.min_t=4")
    parser.add_argument("--quick", action="store_true", help="three nodes, one seed, few rounds and attacks")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--cells", default="", help="folder for results; what stands there is not run again")
    parser.add_argument("--out", default="", help="write the table here")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args(given)
    if options.quick:
        options.nodes, options.seeds, options.liars = "3", 1, "n0"
        options.attacks = options.attacks or "none,sign,x100,ascent"
        options.rules = "witness,graph"
    options.attacks = _names("--attacks", options.attacks or ",".join(ATTACKS), {"none", "ascent", *LIES})
    options.rules = _names("--rules", options.rules, set(RULES))
    options.witness_domains = _split(options.witness_domains)
    options.liars = [tuple(sorted(entry.split("+"))) for entry in _split(options.liars)]
    options.nodes = _counts(options.nodes)
    return options


def _without_folders(given: Sequence[str]) -> list[str]:
    """Where the texts and results lie on this machine is nobody's business."""
    paths = ("--data", "--cells", "--out")
    return [Path(part).name if before in paths else part for before, part in zip(["", *given], given, strict=False)]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _names(option: str, text: str, known: set[str]) -> list[str]:
    names = _split(text)
    if strange := [name for name in names if name not in known]:
        raise ConfigError(f"{option}: {strange[0]!r} is none of {', '.join(sorted(known))}")
    return names


def _counts(text: str) -> list[int]:
    if not all(part.isdigit() and 3 <= int(part) <= 99 for part in _split(text)) or not _split(text):
        raise ConfigError(f"--nodes {text}: give numbers from 3 to 99, such as 3,4,9")
    return [int(part) for part in _split(text)]


def _sample() -> list[str]:
    build_sample(SAMPLE)
    return sorted(str(folder.absolute()) for folder in SAMPLE.iterdir() if folder.is_dir())


def _recipe(seed: int, settings: Sequence[str]) -> Recipe:
    raw = RECIPE | {"seed": seed, "witness": {"data": ["-"]}}
    return validate(Recipe, apply_overrides(raw, list(settings)), "--set")


Job = tuple[Recipe, list[str], int, argparse.Namespace]


def _run(jobs: Sequence[Job], processes: int) -> Iterator[Cell]:
    if processes <= 1:
        for job in jobs:
            yield from federation_cells(*job)
        return
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_all_cells, *job) for job in jobs]):
            yield from done.result()


def _all_cells(recipe: Recipe, files: list[str], count: int, options: argparse.Namespace) -> list[Cell]:
    torch.set_num_threads(1)
    return list(federation_cells(recipe, files, count, options))


def federation_cells(recipe: Recipe, files: list[str], count: int, options: argparse.Namespace) -> Iterator[Cell]:
    """Yields the cells of one number of nodes and one seed, those that others are compared with first."""
    known = _Known(recipe, files, count, options)
    federation: Federation | None = None
    for trial in _trials(options, count):
        cell = known.get(trial)
        if cell is None:
            if federation is None:
                domains = [Domain.read(Path(file), recipe, cache_home()) for file in files]
                federation = Federation(recipe, domains, count, options.witness_domains or None)
            began = time.process_time()
            witness = recipe.witness or WitnessConfig(data=["-"])
            federation.run(trial, witness, Agreement(cosine=recipe.agreement.cosine))
            cell = Cell(
                nodes=count,
                seed=recipe.seed,
                rule=trial.rule,
                attack=trial.attack,
                liars=list(trial.liars or trial.absent),
                absent=bool(trial.absent),
                losses=trial.losses,
                rounds=trial.rounds,
                seconds=round(time.process_time() - began, 1),
            )
            known.put(cell)
        yield cell


class _Known:
    """Cells that were measured before, in one file a federation; named by all that they depend on."""

    def __init__(self, recipe: Recipe, files: list[str], count: int, options: argparse.Namespace) -> None:
        depends = [recipe.model_dump(mode="json"), files, count, options.witness_domains]
        name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        self._path = Path(options.cells) / f"{count}-{recipe.seed}-{name}.json" if options.cells else None
        found: list[dict[str, Any]] = []
        if self._path is not None and self._path.exists():
            found = json.loads(self._path.read_text())
        self._cells = [Cell(**fields) for fields in found]

    def get(self, trial: Trial) -> Cell | None:
        wanted = (trial.rule, trial.attack, list(trial.liars or trial.absent), bool(trial.absent))
        return next((c for c in self._cells if (c.rule, c.attack, c.liars, c.absent) == wanted), None)

    def put(self, cell: Cell) -> None:
        self._cells.append(cell)
        if self._path is not None:
            write_text(self._path, json.dumps([vars(known) for known in self._cells]))


def _trials(options: argparse.Namespace, count: int) -> list[Trial]:
    names = {f"n{number}" for number in range(count)}
    trials = [Trial("mean")]
    trials += [Trial(rule) for rule in options.rules if rule != "mean" and "none" in options.attacks]
    for liars in options.liars:
        # At least two honest nodes must be left, or there is nothing to defend.
        if not names.issuperset(liars) or count - len(liars) < 2:
            continue
        attacks = [attack for attack in options.attacks if attack != "none" and (len(liars) == 1 or attack in PAIRED)]
        if attacks:
            trials.append(Trial("mean", absent=liars))
        trials += [Trial(rule, attack, liars) for rule in options.rules for attack in attacks]
    return trials


def _described(recipe: Recipe, seeds: int) -> str:
    model, rounds, witness = recipe.model, recipe.rounds, recipe.witness or WitnessConfig(data=["-"])
    judged = ", ".join(f"{k} {v}" for k, v in witness.model_dump(exclude={"data", "device", "salt"}).items())
    return (
        f"Seeds: {seeds}; {model.layers} layers of width {model.width}, {model.experts} experts, {rounds.num_rounds} "
        f"rounds of {rounds.local_steps} steps; agreement.cosine {recipe.agreement.cosine:g}; witness: {judged}. "
        "The witness reads windows of the same files, of pieces that nobody trains or is measured on."
    )


if __name__ == "__main__":
    try:
        main()
    except TRFMoEError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
