"""The sides that studies compare: a single machine and federations of one small model, with AdamW or Muon."""

from collections.abc import Mapping
from dataclasses import replace

from scripts.experiments.sides import Side
from trfmoe_core.config.federation import RoundsConfig

BATCH = 12
RECIPE: Mapping[str, object] = {
    "model": {"layers": 4, "width": 128, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 176, "context": 64},
    # Nodes evaluate every round; the study itself measures the last model on all held-out text.
    "data": {"evaluation_tokens": 4096},
    "training": {"batch_size": BATCH, "warmup_steps": 25, "device": "cpu", "threads": 1, "precision": "float32"},
}
STEPS = 500
"""Of the runs that the tables call by no number of steps."""

RATES = {"adamw": (1e-3, 2e-3, 4e-3), "muon": (4e-3, 8e-3, 16e-3)}
BEST = {"adamw": 2e-3, "muon": 8e-3}
"""Of RATES, those that the small form uses: the best of the table of `as-one` in docs/results/one-model.md."""


def one_machine(optimizer: str, parts: int = 3, steps: int = STEPS) -> Side:
    """Returns one machine with as many rows a step as `parts` nodes have together."""
    settings = {
        "training.optimizer": optimizer,
        "training.batch_size": parts * BATCH,
        "rounds.local_steps": 25,
        "rounds.num_rounds": steps // 25,
    }
    return Side(name=_name("one machine", optimizer, parts, steps), parts=parts, nodes=1, settings=settings)


def federation(optimizer: str, local_steps: int | dict[int, int], nodes: int = 3, steps: int = STEPS) -> Side:
    """Returns a federation with rounds of `local_steps`, which may be a schedule."""
    rounds = RoundsConfig(local_steps=local_steps)
    settings = {
        "training.optimizer": optimizer,
        "rounds.local_steps": local_steps,
        "rounds.num_rounds": rounds.rounds_of(steps),
    }
    told = rounds.steps_text.replace(" steps", "")
    name = _name(f"{nodes} nodes, H {told}", optimizer, 3, steps)
    return Side(name=name, parts=nodes, nodes=nodes, settings=settings)


def shared_momentum(side: Side, every: int) -> Side:
    """Returns the federation whose nodes share their momentum every so many rounds."""
    name = f"{side.name}, momentum shared every {every}"
    return replace(side, name=name, settings={**side.settings, "rounds.momentum_every": every})


def outer(side: Side, learning_rate: float, momentum: float) -> Side:
    """Returns the federation with Nesterov's momentum at the coordinator."""
    settings = {
        "outer.optimizer": "nesterov",
        "outer.learning_rate": learning_rate,
        "outer.momentum": momentum,
    }
    return replace(
        side, name=f"{side.name}, outer {learning_rate:g}/{momentum:g}", settings={**side.settings, **settings}
    )


def _name(what: str, optimizer: str, parts: int, steps: int) -> str:
    for_parts = f", for {parts} nodes" if what == "one machine" and parts != 3 else ""
    return f"{what}, {optimizer}{for_parts}" + (f", {steps} steps" if steps != STEPS else "")


def optimizer_of(side: Side) -> str:
    """Returns the local optimizer of a side."""
    return str(side.settings["training.optimizer"])
