"""`trfmoe bench wire --loss`: what fewer bytes cost in held-out loss over a whole run.

Three nodes in this process, with the real coordinator, clients and wire; every way of travelling gets the same seeds,
so that data, initial weights and order are equal. Losses are the median over the nodes, of the last model.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from clients.app import app as client_app
from scripts.bench.wire import WAYS
from scripts.drill.cell import deal_text, node_names, read_pieces
from scripts.output import Output
from server.app import run
from server.events import read_events
from server.in_process import InProcessGrid
from server.run_folder import RunFolder
from trfmoe_core.config import Recipe
from trfmoe_core.data.sample.owners import build_sample

NODES = 3
BASELINE = "train float32"
COMPARED = (
    "train bfloat16 down, int8 up",
    "train int8 differences, int8 up",
    "train int8 differences, int4 up",
)
LIMIT = 1.01
"""Loss relative to float32 that is still as good."""

RECIPE: dict[str, Any] = {
    "name": "loss",
    "num_nodes": NODES,
    "model": {"layers": 3, "width": 64, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 64, "context": 64},
    "data": {"evaluation_tokens": 16384},
    "training": {"batch_size": 12, "device": "cpu", "precision": "float32"},
}


def final_loss(recipe: Recipe, texts: Path, folder: Path) -> float:
    """Returns the held-out loss at the end of a run, nats a token."""
    run_folder = RunFolder.create(folder, recipe)
    configs = [
        {
            "name": name,
            "data": str(texts / str(NODES) / f"{name}.txt"),
            "state-dir": str(run_folder.path / "state"),
            "cache-dir": str(texts / "cache"),
        }
        for name in node_names(NODES)
    ]
    run(InProcessGrid(client_app, configs, {}), run_folder)
    return float(
        [event["loss"] for event in read_events(run_folder.path / "events.jsonl") if event["event"] == "evaluated"][-1]
    )


def measure(sources: Sequence[str], seeds: Iterable[int], rounds: int, steps: int, output: Output) -> dict[str, Any]:
    """Returns the losses of all ways and seeds, and their ratios to float32's of the same seed."""
    losses: dict[str, list[float]] = {way: [] for way in (BASELINE, *COMPARED)}
    with tempfile.TemporaryDirectory(prefix="trfmoe-loss-") as temporary:
        root = Path(temporary)
        if not sources:
            build_sample(root / "sample")
            sources = [str(root / "sample")]
        deal_text(read_pieces(sources, root / "texts" / "cache"), [NODES], root / "texts")
        for seed in seeds:
            for way, found in losses.items():
                raw = {"transport": WAYS[way][1], "rounds": {"num_rounds": rounds, "local_steps": steps}, "seed": seed}
                recipe = Recipe.model_validate({**RECIPE, **raw, "run_root": str(root / "runs")})
                found.append(final_loss(recipe, root / "texts", root / "runs"))
                output.line(f"seed {seed}, {way:<33} {found[-1]:.4f}")
    ratios = {way: [loss / base for loss, base in zip(losses[way], losses[BASELINE], strict=True)] for way in COMPARED}
    return {
        "rounds": rounds,
        "local_steps": steps,
        "losses": losses,
        "loss_ratios": ratios,
        "loss_ratio_mean": {way: fmean(values) for way, values in ratios.items()},
        "loss_ratio_worst": max(max(values) for values in ratios.values()),
        "reached": all(value <= LIMIT for values in ratios.values() for value in values),
    }


def main() -> None:
    """Measures in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", action="append", default=[], help="file or folder to learn; the sample when absent")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    output = Output(options.json)
    result = measure(options.text, range(options.seeds), options.rounds, options.steps, output)
    for way, mean in result["loss_ratio_mean"].items():
        worst = max(result["loss_ratios"][way])
        output.line(f"{way:<33} loss over float32's: mean {mean:.4f}, worst seed {worst:.4f}")
    output.line(f"at most {LIMIT}: {'reached' if result['reached'] else 'MISSED'}")
    output.result({"outcome": "completed", **result, "exit_code": 0})


if __name__ == "__main__":
    main()
