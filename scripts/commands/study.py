"""`trfmoe study NAME`: the evidence for what the product promises about its models."""

import hashlib
import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JobsOption, JsonOption, SetOption
from trfmoe_core.errors import ConfigError

if TYPE_CHECKING:
    from scripts.experiments.store import Store
    from scripts.experiments.tuned import Results, TunedStudy

SAMPLE = Path("data/sample")
SHAKESPEARE = Path("data/tinyshakespeare.txt")
STUDIES = {
    "as-one": "scripts.experiments.studies.as_one:AsOneStudy",
    "domains": "scripts.experiments.studies.domains:DomainsStudy",
    "liar": "scripts.experiments.studies.liar:LiarStudy",
    "low-rank": "scripts.experiments.studies.low_rank:LowRankStudy",
    "holders": "scripts.experiments.studies.holders:HoldersStudy",
    "shakespeare": "scripts.experiments.studies.shakespeare:ShakespeareStudy",
}


def study(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDIES)}.")],
    text: Annotated[
        list[Path],
        typer.Option(
            envvar="TRFMOE_STUDY_TEXT",
            metavar="PATH",
            help="File or folder to learn; domains takes one option a domain. By default "
            f"{SHAKESPEARE} if there is such a file, else the sample.",
        ),
    ] = [],  # noqa: B006
    full: Annotated[bool, typer.Option("--full", help="Everything that docs/results shows: hours.")] = False,
    steps: Annotated[
        int | None, typer.Option(min=50, help="Steps of a run, a multiple of 100; by default the study's own.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every row, at least; the full form has its own.")] = 1,
    overrides: SetOption = [],  # noqa: B006
    jobs: JobsOption = 2,
    out: Annotated[str, typer.Option(metavar="FILE", help="Write the tables here, in Markdown.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Train small models in many ways, each at the learning rate that is best for it, and compare them.

    Results are kept in the cache, so a study that was stopped goes on where it was.
    """
    from scripts.experiments.runner import conduct
    from scripts.terminal.output import Output
    from trfmoe_core.atomic import write_text

    output = Output(as_json)
    if name not in STUDIES:
        raise ConfigError(f"study {name}: unknown; choose one of {', '.join(STUDIES)}")
    if steps is not None and steps % 50:
        raise ConfigError(
            f"--steps {steps}: rounds have up to 100 steps; give a multiple of 100, or of 50 without --full"
        )
    found, store = _prepared(name, text or [_default_text()], full, steps, overrides, seeds)
    try:
        results = conduct(found, store, jobs, output)
    finally:
        shutil.rmtree(store.folder / "answers", ignore_errors=True)  # large, and of use while cells are trained
    tables = [*_preface(name, full, found, results), *found.markdown(results)]
    for line in ["", *tables]:
        output.line(line)
    if out:
        write_text(Path(out), "\n".join(tables) + "\n")
        output.line(f"\nwritten to {out}")
    told = found.payload(results)
    code = 0 if told["ended"] else 1
    output.result({"outcome": "completed" if told["ended"] else "failed", **told, "exit_code": code})
    raise typer.Exit(code)


def _default_text() -> Path:
    """Returns the text of a study where none is given: tiny-shakespeare, else Python's documentation, made here."""
    from trfmoe_core.data.sample.owners import build_sample

    if not SHAKESPEARE.exists():
        build_sample(SAMPLE)
        return SAMPLE
    return SHAKESPEARE


def _prepared(
    name: str, paths: Sequence[Path], full: bool, steps: int | None, overrides: Sequence[str], seeds: int = 1
) -> "tuple[TunedStudy, Store]":
    """Returns the study, with the text dealt out, and where its results are kept."""
    from scripts.experiments.cell_training import read_pieces
    from scripts.experiments.sides import DealtText
    from scripts.experiments.store import Store
    from trfmoe_core.config import apply_overrides
    from trfmoe_core.places import cache_home, expand

    module, _, kind = STUDIES[name].partition(":")
    make: type[TunedStudy] = getattr(importlib.import_module(module), kind)
    root = cache_home() / "study" / name
    sources = [str(expand(path).absolute()) for path in paths]
    if make.by_domain:
        # The owners of the sample are domains.
        sources = [part for path in sources for part in _parts(Path(path))]
        texts = {Path(path).stem: read_pieces([path], root / "cache") for path in sources}
    else:
        texts = {Path(sources[0]).stem: read_pieces(sources, root / "cache")}
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    base = apply_overrides(dict(make.RECIPE), list(overrides))
    store = Store(root, [base, digest])
    text = DealtText(store.folder / "texts", tuple(texts))
    length = steps or make.STEPS[full]
    found = make(base=base, text=text, answers=store.folder / "answers", full=full, steps=length, seeds=seeds)
    found.deal(texts, sources)
    return found, store


def _parts(path: Path) -> list[str]:
    """Returns the folders in a folder, else the path itself."""
    folders = sorted(str(part) for part in path.iterdir() if part.is_dir()) if path.is_dir() else []
    return folders or [str(path)]


def _preface(name: str, full: bool, found: "TunedStudy", results: "Results") -> list[str]:
    """Returns what stands above the tables."""
    from scripts.experiments.runner import environment

    around = environment()
    return [
        f"# {name}",
        "",
        f"Written by `trfmoe study {name}{' --full' if full else ''}`. Text: {', '.join(found.text.names)}. "
        f"{len(results)} cells, {sum(result.seconds for result in results.values()):.0f} seconds of processor time.",
        f"Environment: {', '.join(f'{key} {value}' for key, value in around.items())}.",
        "",
        "Losses are nats a token (a byte) over all held-out text: mean, and range over paired seeds.",
        "",
    ]
