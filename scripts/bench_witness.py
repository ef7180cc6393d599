"""Measures votes among nodes whose texts differ: `python -m scripts.bench_witness --texts FILE... [--json]`.

One domain a node; one liar (or a pair). An attack is measured against the run in which the liar is absent, a rule
without faults against the plain mean. Results go to `--out` as they come; what stands there is not run again.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from scripts.bench_federation import LIES, Domain, Federation, Trial
from strategies.voting import Agreement
from trfmoe_core.atomic import write_text
from trfmoe_core.config import Recipe, WitnessConfig, apply_overrides

RULES = ("witness", "graph", "mean")
ATTACKS = ("none", "sign", "sign_x3", "sign_x0.3", "x100", "nan", "stale", "ascent", "inner_product", "a_little")
RECIPE = {
    "model": {"layers": 2, "width": 64, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 96, "context": 64},
    "data": {"held_out": 0.2, "piece_bytes": 1024, "evaluation_tokens": 24576},
    "training": {"batch_size": 12, "learning_rate": 2e-3, "min_learning_rate": 2e-4, "device": "cpu"},
    "rounds": {"num_rounds": 8, "local_steps": 25},
}

Cells = dict[str, dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    """Runs the cells that are asked for and prints the table."""
    options = _options(arguments)
    torch.set_num_threads(1)
    out = Path(options.out)
    cells: Cells = json.loads(out.read_text()) if out.exists() else {}
    raw = RECIPE | {"seed": options.seed, "witness": {"data": ["-"]}}
    recipe = Recipe.model_validate(apply_overrides(raw, options.set))
    files = [*options.texts, *([options.pdf] if options.pdf else [])]
    domains = [Domain.read(Path(file), recipe, Path(options.cache)) for file in files]
    for count in options.nodes:
        federation = Federation(recipe, domains, count, options.witness_domains)
        for trial in _trials(options, list(federation.domains)):
            key = _key(count, options.seed, trial, recipe, options.witness_domains)
            if key in cells:
                continue
            started = time.process_time()
            federation.run(trial, _witness(recipe), Agreement(cosine=-0.2))
            cells[key] = {
                "nodes": count,
                "seed": options.seed,
                "rule": trial.rule,
                "attack": trial.attack,
                "liars": trial.liars,
                "absent": trial.absent,
                "loss": fmean(trial.losses.values()),
                "losses": trial.losses,
                "rounds": trial.rounds,
                "seconds": round(time.process_time() - started, 1),
            }
            write_text(out, json.dumps(cells))
            _say(_line(key, cells))
    result = {key: _summary(key, cells) for key in sorted(cells)}
    if options.json:
        _say(json.dumps(result))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", nargs="+", required=True, help="one domain each")
    parser.add_argument("--pdf", help="one more domain")
    parser.add_argument("--nodes", type=lambda text: [int(part) for part in text.split(",")], default=[3, 4, 9])
    parser.add_argument("--rules", type=lambda text: text.split(","), default=list(RULES))
    parser.add_argument("--attacks", type=lambda text: text.split(","), default=list(ATTACKS))
    parser.add_argument("--liars", type=lambda text: text.split(","), default=["n0"], help="node names")
    parser.add_argument(
        "--witness-domains", type=lambda text: text.split(","), help="stems of the files that the witness has text of"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe, e.g. witness.ema=0")
    parser.add_argument("--out", default="bench_witness.json", help="results, as they come")
    parser.add_argument("--cache", default=".cache", help="folder for token shards")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args(arguments)
    if strange := sorted(set(options.attacks) - {"none", "ascent", *LIES} | set(options.rules) - set(RULES)):
        parser.error(f"unknown: {', '.join(strange)}")
    return options


def _trials(options: argparse.Namespace, names: list[str]) -> list[Trial]:
    liars = tuple(name for name in options.liars if name in names)
    trials = [Trial("mean")]
    if any(attack != "none" for attack in options.attacks):
        trials.append(Trial("mean", absent=liars))
    for rule in options.rules:
        for attack in options.attacks:
            trials.append(Trial(rule) if attack == "none" else Trial(rule, attack, liars))
    return trials


def _witness(recipe: Recipe) -> WitnessConfig:
    return recipe.witness or WitnessConfig(data=["-"])


def _key(count: int, seed: int, trial: Trial, recipe: Recipe, judged_by: list[str] | None) -> str:
    parts = [f"N={count}", f"seed={seed}", trial.rule, trial.attack]
    if trial.liars or trial.absent:
        parts.append("+".join(trial.liars or trial.absent))
    if trial.absent:
        parts[3] = "absent"
    settings = _witness(recipe).model_dump(exclude={"data", "device"}, exclude_defaults=True)
    if trial.rule == "witness" and settings:
        parts.append(json.dumps(settings, sort_keys=True))
    if trial.rule == "witness" and judged_by:
        parts.append(f"by {'+'.join(judged_by)}")
    return " ".join(parts)


def _yardstick(cell: dict[str, Any], cells: Cells) -> dict[str, Any]:
    start = f"N={cell['nodes']} seed={cell['seed']} mean"
    if cell["attack"] == "none":
        return cells[f"{start} none"]
    return cells[f"{start} absent {'+'.join(cell['liars'])}"]


def _summary(key: str, cells: Cells) -> dict[str, Any]:
    """Returns the ratios to the yardstick, and how often liars and honest nodes were convicted or outvoted."""
    cell = cells[key]
    yardstick = _yardstick(cell, cells)
    ratios = {name: loss / yardstick["losses"][name] for name, loss in cell["losses"].items()}
    summary = {
        "loss": round(cell["loss"], 4),
        "ratio": round(cell["loss"] / yardstick["loss"], 4),
        "worst_domain": round(max(ratios.values()), 4),
    }
    named = [r.get("convicted", list(r.get("outvoted", {}))) for r in cell["rounds"]]
    summary["liar_rounds"] = sum(any(name in cell["liars"] for name in names) for names in named)
    summary["honest_rounds"] = sum(any(name not in cell["liars"] for name in names) for names in named)
    if cell["rule"] == "graph":
        counts = [r["outvoted"] for r in cell["rounds"]]
        summary["liar_blocks"] = sum(n for c in counts for name, n in c.items() if name in cell["liars"])
        summary["honest_blocks"] = sum(n for c in counts for name, n in c.items() if name not in cell["liars"])
    return summary


def _line(key: str, cells: Cells) -> str:
    shown = " ".join(f"{name} {value}" for name, value in _summary(key, cells).items())
    return f"{key}: {shown} ({cells[key]['seconds']:.0f} s)"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
