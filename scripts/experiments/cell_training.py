"""Trains one cell with the real coordinator and the real clients, on text that is dealt out among the nodes."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from flwr.app import Message, MessageType

from clients import app as production
from clients.attacks.base import find_attack
from scripts.experiments.answers import remembering_app
from scripts.experiments.cell import Cell, Result, Round
from scripts.experiments.faults import find_fault
from scripts.experiments.in_process import InProcessGrid
from scripts.experiments.omniscient import OmniscientAttackers
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Event, read_events
from strategies.exchange.in_flight import Clock
from trfmoe_core.atomic import write_text
from trfmoe_core.config import DataConfig, DrillConfig, Recipe, WitnessConfig
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer

MAX_CHARACTERS = 4_000_000
REPLY_DEADLINE_S = 60.0
Measure = Callable[[RunFolder], dict[str, float]]
"""Returns the losses of the last model of a run, nats a token, by the name of the text."""

LOST_COLUMNS = ("outvoted", "missing", "invalid")
"""Of a verdict: the nodes whose replica of the block did not count."""


class VirtualClock:
    """A clock that moves only when somebody sleeps, and then at once."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now(self) -> float:
        """Returns the time in seconds."""
        return self.time_s

    def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.time_s += seconds


def node_names(count: int) -> list[str]:
    """Returns the names of the nodes of a federation."""
    return [f"node-{number:02d}" for number in range(1, count + 1)]


def last_nodes(count: int, attackers: int) -> tuple[str, ...]:
    """Returns the names of the last `attackers` nodes of a federation of `count`."""
    return tuple(node_names(count)[count - attackers :])


def read_pieces(sources: Sequence[str], cache: Path) -> list[str]:
    """Returns the text of `sources` in pieces, as nodes cut it, up to a few million characters.

    Raises:
        DataError: No source gives any text.
    """
    tokenizer = load_tokenizer("byte")
    # Both sides of the split are dealt out, so nothing need be left out between them.
    config = DataConfig(separate_near_duplicates=False)
    corpus = prepare_corpus(sources, config, tokenizer, cache)
    stores = [store for source in corpus.sources for store in (source.train, source.held_out)]
    pieces = [tokenizer.decode(store.piece(piece).tolist()) for store in stores for piece in range(store.num_pieces)]
    total = 0
    return [piece for piece in pieces if (total := total + len(piece)) <= MAX_CHARACTERS]


def deal_text(pieces: Sequence[str], counts: Sequence[int], folder: Path) -> None:
    """Deals the pieces out one by one, into `folder/<nodes>/<node>.txt` for every number of nodes."""
    for count in counts:
        for number, name in enumerate(node_names(count)):
            write_text(folder / str(count) / f"{name}.txt", "\n\n".join(pieces[number::count]))


def train_cell(
    recipe: Recipe,
    cell: Cell,
    texts: Path,
    answers: Path | None,
    measure: Measure | None = None,
    begin: Callable[[RunFolder], None] | None = None,
) -> Result:
    """Trains a federation in a temporary folder. Whatever the run raises is part of the result.

    Args:
        recipe: The recipe of this cell but for rule, seed and nodes.
        cell: The federation to train.
        texts: Folder that `deal_text` wrote.
        answers: Folder that keeps honest answers for other cells of the same recipe and texts; None: they are not kept.
        measure: Measures the last model; by default the honest nodes' own measurements are the losses.
        begin: Called with the run's folder before the run begins.
    """
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="trfmoe-experiment-") as temporary:
        folder = RunFolder.create(Path(temporary), cell_recipe(recipe, cell, Path(temporary)))
        if begin is not None:
            begin(folder)
        clock = VirtualClock()
        reason = ""
        try:
            run(_grid(folder, cell, texts, answers, clock), folder, Clock(now=clock.now, sleep=clock.sleep))
        except Exception as error:  # noqa: BLE001  An exception that ends a run is what experiments look for.
            reason = f"{type(error).__name__}: {error}"
        events = read_events(folder.events_path) if folder.events_path.exists() else []
        result = _result(cell, events, reason, time.process_time() - started)
        if measure is not None:
            result = replace(result, losses=measure(folder) if result.ended else {})
    return result


def cell_recipe(recipe: Recipe, cell: Cell, run_root: Path) -> Recipe:
    """Returns the recipe with the cell's rule, seed and number of nodes."""
    witness = recipe.witness if cell.rule == "majority" else None
    changes = {
        "name": "drill",
        "run_root": str(run_root),
        "vote": cell.rule,
        "seed": cell.seed,
        "rounds": recipe.rounds.model_copy(update={"reply_deadline_s": REPLY_DEADLINE_S}),
        "nodes": [],
        "num_nodes": cell.nodes,
        "witness": witness and _with_common_salt(witness),
        "log": recipe.log.model_copy(update={"wandb": "off"}),
        "training": recipe.training.model_copy(update={"threads": 1}),  # cells are compared, and many train at once
    }
    return recipe.model_copy(update=changes)


def _with_common_salt(witness: WitnessConfig) -> WitnessConfig:
    """Returns the witness with a salt that is the same in every cell, so that cells can be compared."""
    return witness.model_copy(update={"salt": witness.salt or "the drill's own salt"})


def _grid(folder: RunFolder, cell: Cell, texts: Path, answers: Path | None, clock: VirtualClock) -> InProcessGrid:
    fault = find_fault(cell.fault)
    drill = fault.drill_in(folder.recipe.rounds.num_rounds)
    names = node_names(cell.nodes)
    attackers = frozenset(names.index(name) + 1 for name in cell.attackers)
    omniscient = drill is not None and find_attack(drill.attack).needs == "replicas"

    def latency_s(node_id: int, message: Message) -> float:
        is_late = node_id in attackers and message.metadata.message_type == MessageType.TRAIN
        return fault.latency_s if is_late else 0.0

    return InProcessGrid(
        production.app if answers is None else remembering_app(answers),
        _node_configs(cell, None if omniscient else drill, texts, folder.path),
        {},
        exchange=OmniscientAttackers(drill=drill, attackers=attackers) if drill and omniscient else None,
        latency_s=latency_s,
        now=clock.now,
    )


def _node_configs(cell: Cell, drill: DrillConfig | None, texts: Path, folder: Path) -> list[dict[str, Any]]:
    """Returns Flower's configuration of every node: its text, its folders, and the attack if it is an attacker."""
    attack = {f"drill-{key}": value for key, value in drill.model_dump(exclude_none=True).items()} if drill else {}
    return [
        {
            "name": name,
            "data": str(texts / str(cell.nodes) / f"{name}.txt"),
            "state-dir": str(folder / "state"),
            "cache-dir": str(texts / "cache"),
            "salt": "",  # cells with the same seed are compared
            **(attack if name in cell.attackers else {}),
        }
        for name in node_names(cell.nodes)
    ]


def _result(cell: Cell, events: list[Event], reason: str, seconds: float) -> Result:
    finished = [event for event in events if event["event"] == "run_finished"]
    ended = bool(finished) and finished[-1]["outcome"] == "completed"
    committed = max((event["round"] for event in events if event["event"] == "round_committed"), default=-1)
    evaluated = [event for event in events if event["event"] == "evaluated" and event["round"] == committed]
    last = evaluated[-1]["nodes"] if evaluated else {}
    rounds = []
    for event in events:
        if event["event"] == "verdicts":
            lost = Counter(name for verdict in event["verdicts"] for column in LOST_COLUMNS for name in verdict[column])
            rounds.append(Round(lost_blocks=dict(lost), blamed=sorted(lost)))
    return Result(
        cell=cell,
        losses={name: measured["loss"] for name, measured in last.items() if name not in cell.attackers},
        rounds=rounds,
        ended=ended,
        reason=reason or ("" if ended else "the run was not completed"),
        seconds=seconds,
        facts=_bytes(events),
    )


def _bytes(events: list[Event]) -> dict[str, float]:
    """Returns the mean bytes of a round to a node and from it."""
    replies = [event for event in events if event["event"] == "node_reply" and event["status"] == "accepted"]
    return {key: fmean(event[key] for event in replies) for key in ("bytes_down", "bytes_up")} if replies else {}
