"""The two sides of a comparison: one machine with all the text, and a federation that the text is dealt out to.

Both go the way of production: `trfmoe train`'s own run, and the real coordinator and clients with their votes. The last
model of either is measured on the same held-out pieces, which neither has trained on.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_training import node_names, train_cell
from scripts.run.local.run import LocalRun, prepare_data
from server.run_folder.folder import RunFolder
from server.run_folder.models import choose_round, load_model
from trfmoe_core.atomic import write_text
from trfmoe_core.config import Recipe
from trfmoe_core.config.load import apply_overrides, validate
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.held_out import EvaluationSet, evaluation_windows
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.sources.files import FilesSource
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.evaluate import evaluate

CPU = torch.device("cpu")
ALL_TOKENS = 1 << 40
EVALUATION_BATCH = 32
LOAD_WINDOWS = 512
"""Of each text, by which the use of the experts is counted."""
TOKENIZER = load_tokenizer("byte")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to train a model on a text, but for the learning rate and the seed.

    Attributes:
        name: In tables.
        parts: The text is dealt out in so many parts, which decides what is held out.
        nodes: Number of nodes, each with a part; 1: one machine with all parts.
        settings: Keys of the recipe that this side sets, `a.b` -> value.
        rule: Of the vote.
    """

    name: str
    parts: int
    nodes: int
    settings: Mapping[str, object]
    rule: str = "majority"

    def cell(self, rate: float, seed: int, fault: str = "none", attackers: tuple[str, ...] = ()) -> Cell:
        """Returns the cell that trains this side."""
        setting = f"{self.name} @ {rate:g}"
        return Cell(nodes=self.nodes, rule=self.rule, seed=seed, fault=fault, attackers=attackers, setting=setting)

    def recipe(self, base: Mapping[str, object], rate: float) -> Recipe:
        """Returns the recipe: `base`, this side's settings, and a learning rate that falls to a tenth."""
        settings = {**self.settings, "training.learning_rate": rate}
        return validate(Recipe, apply_overrides(dict(base), [f"{key}={value}" for key, value in settings.items()]), "")


def rate_of(cell: Cell) -> float:
    """Returns the learning rate of a cell that `Side.cell` made."""
    return float(cell.setting.rpartition(" @ ")[2])


@dataclass(frozen=True)
class DealtText:
    """Texts that are dealt out among nodes: `folder/<parts>/<node>.txt`.

    With several texts each node has pieces of one of them: node number i has text i modulo their number.

    Attributes:
        folder: The nodes' texts, and the cache of their tokens.
        names: Of the texts.
    """

    folder: Path
    names: tuple[str, ...]

    def deal(self, texts: Mapping[str, Sequence[str]], counts: Iterable[int]) -> None:
        """Deals the pieces of every text out one by one, for every number of nodes in `counts`."""
        for count in counts:
            for number, file in enumerate(self.files(count)):
                owners = range(number % len(self.names), count, len(self.names))
                pieces = texts[self.owner(number)]
                write_text(file, "\n\n".join(pieces[owners.index(number) :: len(owners)]))

    def owner(self, number: int) -> str:
        """Returns the name of the text that node number `number` has pieces of."""
        return self.names[number % len(self.names)]

    def files(self, count: int) -> list[Path]:
        """Returns the files of `count` nodes, in their order."""
        return [self.folder / str(count) / f"{name}.txt" for name in node_names(count)]

    def corpus(self, recipe: Recipe, count: int) -> Corpus:
        """Returns the text of all `count` nodes, a source each."""
        return prepare_corpus(_sources(self.files(count)), recipe.data, TOKENIZER, self.folder / "cache")

    def held_out(self, recipe: Recipe, count: int) -> dict[str, EvaluationSet]:
        """Returns all held-out pieces of `count` nodes, by the text that they are from."""
        sources = self.corpus(recipe, count).sources
        found = {}
        for name in self.names[:count]:
            stores = [source.held_out for number, source in enumerate(sources) if self.owner(number) == name]
            weights = [float(store.num_tokens) for store in stores]
            found[name] = evaluation_windows(stores, weights, recipe.model.context, ALL_TOKENS)
        return found


def train_side(
    recipe: Recipe,
    side: Side,
    cell: Cell,
    text: DealtText,
    answers: Path | None = None,
    begin: Callable[[RunFolder], None] | None = None,
) -> Result:
    """Trains one side and measures its last model on the held-out pieces of all parts.

    Args:
        recipe: Of the side.
        side: Says how the text is dealt.
        cell: Rule, seed and faults.
        text: The text.
        answers: Folder that keeps honest answers for other cells; None: they are not kept.
        begin: Called with the folder of a federation's run before it begins.
    """
    held_out = text.held_out(recipe, side.parts)
    facts: dict[str, float] = {}

    def measure(folder: RunFolder) -> dict[str, float]:
        model, _ = load_model(folder, choose_round(folder, last=True))
        facts.update(expert_load(model, held_out))
        return {
            name: evaluate(model, windows, EVALUATION_BATCH, CPU, torch.float32).loss
            for name, windows in held_out.items()
        }

    if side.nodes > 1:
        result = train_cell(recipe, cell, text.folder, answers, measure, begin)
        return replace(result, facts=result.facts | facts)
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="trfmoe-experiment-") as temporary:
        folder = RunFolder.create(Path(temporary), alone(recipe, cell, text.files(side.parts), Path(temporary)))
        tokenizer, corpus = prepare_data(folder.recipe)
        LocalRun(folder, tokenizer, corpus, sink=lambda event: None, device=CPU).run()
        losses = measure(folder)
    return Result(cell=cell, losses=losses, rounds=[], seconds=time.process_time() - started, facts=facts)


@torch.no_grad()
def expert_load(model: MoETransformer, texts: Mapping[str, EvaluationSet]) -> dict[str, float]:
    """Returns how evenly the experts are used, of each text: the least and the most used one of any layer.

    Keys are `least, TEXT` and `most, TEXT`, in multiples of an even share; and `difference`, the mean over layers and
    pairs of texts of the total variation between their experts' shares: 0 if all texts use the experts alike, 1 if no
    two share any.
    """
    shares_LE = {}
    for name, windows in texts.items():
        counts_LE = torch.zeros(model.config.layers, model.config.experts)
        for begin in range(0, min(len(windows.tokens), LOAD_WINDOWS), EVALUATION_BATCH):
            tokens = torch.from_numpy(windows.tokens[begin : begin + EVALUATION_BATCH])
            counts_LE += model(tokens[:, :-1], tokens[:, 1:]).expert_counts_LE
        shares_LE[name] = counts_LE / counts_LE.sum(dim=1, keepdim=True)
    found = {}
    for name, share_LE in shares_LE.items():
        found[f"least, {name}"] = float(share_LE.min() * model.config.experts)
        found[f"most, {name}"] = float(share_LE.max() * model.config.experts)
    pairs = list(combinations(shares_LE.values(), 2))
    if pairs:
        found["difference"] = fmean(float((one - two).abs().sum(dim=1).mean() / 2) for one, two in pairs)
    return found


def alone(recipe: Recipe, cell: Cell, files: Sequence[Path], run_root: Path) -> Recipe:
    """Returns the recipe of a run on one machine that has all files, each with the same share of the batches."""
    steps = recipe.total_steps
    changes = {
        "name": "alone",
        "run_root": str(run_root),
        "seed": cell.seed,
        "data": recipe.data.model_copy(update={"sources": _sources(files)}),
        "training": recipe.training.model_copy(update={"steps": steps}),
        # Nothing is evaluated or saved on the way.
        "local": recipe.local.model_copy(update={"evaluate_every": steps, "save_every": steps, "log_every": steps}),
        "log": recipe.log.model_copy(update={"wandb": "off"}),
    }
    return recipe.model_copy(update=changes)


def _sources(files: Iterable[Path]) -> list[FilesSource]:
    """Returns a source for each file; plain paths would be one source together."""
    return [FilesSource(source="files", path=str(file)) for file in files]
