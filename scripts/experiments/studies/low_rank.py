"""The study `low-rank`: experts that are small changes of one dense network, against experts that are networks.

A small dense model first learns the first text. It is then upcycled in both ways, and a federation goes on with the
other texts, one a node. Full experts train with everything else; of the low-rank model only routers and experts do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_training import last_nodes
from scripts.experiments.faults import ABSENT
from scripts.experiments.rows import Promise
from scripts.experiments.sides import CPU, EVALUATION_BATCH, TOKENIZER, DealtText, Side, rate_of, train_side
from scripts.experiments.small_model import federation, one_machine
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_rate,
    best_results,
    goal,
    goal_table,
    loss_table,
    mean_loss,
    ratios,
)
from scripts.run.local.run import LocalRun, prepare_data
from server.run_folder.folder import RunFolder
from server.run_folder.models import choose_round, load_model
from trfmoe_core.config import ModelConfig, Recipe
from trfmoe_core.data.sources.files import FilesSource
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.transformer import MoETransformer, build_model
from trfmoe_core.training.evaluate import evaluate
from trfmoe_core.training.memory import training_memory

EXPERTS, RANK, NODES = 8, 16, 3
DENSE_STEPS = 400
DENSE_RATE = 8e-3
LIAR = "sign_flip"
RATES = {"full": (2e-3, 4e-3, 8e-3), "low-rank": (4e-3, 8e-3, 16e-3)}
OVER_FULL, BYTES_SHARE, MEMORY_SHARE, LIAR_OVER_ABSENT = 1.03, 0.1, 1 / 3, 1.02


class LowRankStudy(TunedStudy):
    """Federations that go on with an upcycled model."""

    by_domain: ClassVar[bool] = True
    STEPS: ClassVar[tuple[int, int]] = (200, 500)
    RECIPE: ClassVar[Mapping[str, object]] = {
        "model": {"layers": 4, "width": 128, "heads": 4, "top_k": 2, "expert_width": 352, "context": 64},
        "data": {"evaluation_tokens": 4096},
        "training": {"batch_size": 12, "warmup_steps": 25, "device": "cpu", "threads": 1, "precision": "float32"},
    }

    @property
    def owners(self) -> DealtText:
        """The texts that nodes own: all but the first."""
        return DealtText(self.text.folder / "owners", self.text.names[1:])

    def side(self, kind: str) -> Side:
        """Returns the federation with experts of a kind."""
        side = federation("muon", 25, NODES, self.steps)
        settings: dict[str, object] = {**side.settings, "model.experts": EXPERTS}
        if kind == "low-rank":
            settings |= {"model.expert": "low_rank", "model.rank": RANK, "training.freeze": "base"}
        return replace(side, name=f"{kind} experts, {side.name}", settings=settings)

    def tuned(self) -> list[Tuned]:
        """Returns both kinds; the small form leaves out the lowest rates."""
        if not self.full:
            return [Tuned(side=self.side(kind), rates=rates[-2:]) for kind, rates in RATES.items()]
        return [Tuned(side=self.side(kind), rates=rates, seeds=3) for kind, rates in RATES.items()]

    def deal(self, texts: Mapping[str, Sequence[str]], sources: Sequence[str]) -> None:
        """Deals the texts out, and trains the dense model.

        Raises:
            ConfigError: There are not as many texts as there are nodes, and one for the dense model.
        """
        if len(texts) != NODES + 1:
            raise ConfigError(
                f"study low-rank: {len(texts)} texts; give --text {NODES + 1} times: one for the dense model, and one "
                "for each node"
            )
        self.owners.deal({name: texts[name] for name in self.owners.names}, {NODES})
        first = DealtText(self.text.folder / "dense", self.text.names[:1])
        first.deal(texts, {1})
        if not self._dense_path.exists():
            self._train_dense(first)

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds, and low-rank federations one of whose nodes lies or is absent."""
        side = self.side("low-rank")
        rate, attackers = best_rate(side, results), last_nodes(NODES, 1)
        return [
            *super().further_cells(results),
            *(side.cell(rate, seed, fault, attackers) for seed in self.seeds_of(3) for fault in (ABSENT.name, LIAR)),
        ]

    def train(self, cell: Cell) -> Result:
        """Trains a cell, from the dense model, and notes the memory of a node and the losses before."""
        side = self.side_of(cell)
        recipe = side.recipe(self.base, rate_of(cell))
        model = upcycled(self.dense, recipe, cell.seed)

        def begin(folder: RunFolder) -> None:
            weights = {name: value.detach().contiguous() for name, value in model.named_weights().items()}
            save_file(weights, folder.imported_path)

        result = train_side(recipe, side, cell, self.owners, begin=begin)
        memory = training_memory(recipe.model, recipe.training, TOKENIZER.padded_vocab_size, CPU)
        held_out = self.owners.held_out(recipe, NODES)
        before = [evaluate(model, windows, EVALUATION_BATCH, CPU, torch.float32).loss for windows in held_out.values()]
        facts = {"memory": float(memory.weights + memory.gradients + memory.moments), "before": fmean(before)}
        return replace(result, facts=result.facts | facts)

    @cached_property
    def dense(self) -> MoETransformer:
        """The dense model, as a mixture of one."""
        model = build_model(self._dense_recipe.model, TOKENIZER.padded_vocab_size, 0)
        model.load_state_dict(load_file(self._dense_path), strict=False)
        return model

    def shares(self, results: Results) -> dict[str, float]:
        """Returns bytes and memory of the low-rank federation, as shares of those of full experts."""
        mine, theirs = (best_results(self.side(kind), results)[0].facts for kind in ("low-rank", "full"))
        return {key: mine[key] / theirs[key] for key in ("bytes_up", "memory")}

    def liar(self, results: Results) -> list[float]:
        """Returns the losses with a liar over those without that node, a seed each."""
        by_fault: dict[str, dict[int, float]] = {}
        for cell, result in results.items():
            by_fault.setdefault(cell.fault, {})[cell.seed] = mean_loss(result)
        lied, absent = by_fault[LIAR], by_fault[ABSENT.name]
        return [lied[seed] / absent[seed] for seed in sorted(lied.keys() & absent.keys())]

    def goals(self, results: Results) -> list[Promise]:
        """Returns the goals."""
        shares = self.shares(results)
        over_full = ratios(self.side("low-rank"), self.side("full"), results)
        return [
            goal("low-rank over full experts", OVER_FULL, over_full),
            goal("bytes from a node, share of full experts'", BYTES_SHARE, [shares["bytes_up"]]),
            goal("weights, gradients and moments, share of full experts'", MEMORY_SHARE, [shares["memory"]]),
            goal(f"low-rank, {LIAR} by one of three, over that node absent", LIAR_OVER_ABSENT, self.liar(results)),
        ]

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the goals' ratios by name, and all cells."""
        side, full = self.side("low-rank"), self.side("full")
        return {
            "low_rank_over_full": fmean(ratios(side, full, results)),
            "liar_over_absent": fmean(self.liar(results)),
            "shares": self.shares(results),
            **super().payload(results),
        }

    def markdown(self, results: Results) -> list[str]:
        """Returns the losses, also before the run, and the goals."""
        before = fmean(result.facts["before"] for result in results.values())
        return [
            f"The dense model has {before:.3f} nats on the nodes' held-out text before the run.",
            "",
            *loss_table(self, results, [self.side("full")]),
            "",
            *goal_table(self.goals(results)),
        ]

    @property
    def _dense_path(self) -> Path:
        return self.text.folder / "dense.safetensors"

    @property
    def _dense_recipe(self) -> Recipe:
        side = one_machine("muon", 1, DENSE_STEPS)
        settings = {**side.settings, "model.experts": 1, "model.top_k": 1, "training.batch_size": 24}
        return replace(side, settings=settings).recipe(self.base, DENSE_RATE)

    def _train_dense(self, text: DealtText) -> None:
        recipe = self._dense_recipe
        changes = {
            "name": "dense",
            "run_root": str(self.text.folder),
            "data": recipe.data.model_copy(
                update={"sources": [FilesSource(source="files", path=str(file)) for file in text.files(1)]}
            ),
            "training": recipe.training.model_copy(update={"steps": DENSE_STEPS}),
        }
        folder = RunFolder.create(self.text.folder, recipe.model_copy(update=changes))
        tokenizer, corpus = prepare_data(folder.recipe)
        LocalRun(folder, tokenizer, corpus, sink=lambda event: None, device=CPU).run()
        model, _ = load_model(folder, choose_round(folder))
        temporary = self._dense_path.with_suffix(".tmp")
        save_file({name: value.detach().contiguous() for name, value in model.named_weights().items()}, temporary)
        temporary.replace(self._dense_path)


@torch.no_grad()
def upcycled(dense: MoETransformer, recipe: Recipe, seed: int) -> MoETransformer:
    """Returns a mixture that computes what a mixture of one expert computes; routers are drawn from the seed."""
    config: ModelConfig = recipe.model
    model = build_model(config, dense.vocab_size, seed, freeze=recipe.training.freeze)
    ours, theirs = model.named_weights(), dense.named_weights()
    for name, weights in theirs.items():
        layer, _, stack = name.partition(".experts.")
        if not stack:
            if not name.endswith("router.weight"):
                ours[name].copy_(weights)
        elif config.expert == "low_rank":
            ours[f"{layer}.experts.base.{stack[:-3]}{stack[-2:]}"].copy_(weights[0])
        else:
            ours[name].copy_(weights.expand_as(ours[name]))
    return model
