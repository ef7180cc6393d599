"""One cell of the drill: a small federation on real text in this process, with one fault, from start to end."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Message, MessageType

from clients.conspiracy import Conspiracy
from scripts.drill.faults import FAULTS
from scripts.drill.memory import remembering_app
from server.app import run
from server.events import read_events
from server.in_process import InProcessGrid
from server.run_folder import RunFolder
from strategies.exchange import Clock
from strategies.voting import Rule
from trfmoe_core.atomic import write_text
from trfmoe_core.config import DataConfig, Recipe, WitnessConfig
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer

MAX_CHARACTERS = 4_000_000
REPLY_DEADLINE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run."""

    nodes: int
    fault: str
    rule: Rule
    seed: int


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What came of it.

    Attributes:
        cell: What was run.
        ended: Whether the run came to its end.
        reason: Why it did not.
        losses: Held-out loss of the last model on every honest node's text, nats a token; empty when none measured it.
        named: Node -> rounds in which it was outvoted in some block, or its reply dropped or missing.
        lost_blocks: Node -> blocks that it lost so, over all rounds.
        seconds: Of this process.
    """

    cell: Cell
    ended: bool
    reason: str
    losses: dict[str, float]
    named: dict[str, int]
    lost_blocks: dict[str, int]
    seconds: float


class VirtualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now(self) -> float:
        """Returns the time in seconds."""
        return self.time_s

    def sleep(self, seconds: float) -> None:
        """Lets time pass at once."""
        self.time_s += seconds


def node_names(count: int) -> list[str]:
    """Returns the names of the nodes; the faulty ones are the last."""
    return [f"node-{number:02d}" for number in range(1, count + 1)]


def liars_of(cell: Cell) -> list[str]:
    """Returns the names of a cell's faulty nodes."""
    return node_names(cell.nodes)[cell.nodes - FAULTS[cell.fault].liars :]


def read_pieces(sources: Sequence[str], cache: Path) -> list[str]:
    """Returns the text of `sources` in pieces, as nodes cut it, up to a few million characters.

    Raises:
        DataError: no source gives any text.
    """
    tokenizer = load_tokenizer("byte")
    corpus = prepare_corpus(sources, DataConfig(), tokenizer, cache)
    stores = [store for source in corpus.sources for store in (source.train, source.held_out)]
    pieces = [tokenizer.decode(store.piece(piece).tolist()) for store in stores for piece in range(store.num_pieces)]
    total = 0
    return [piece for piece in pieces if (total := total + len(piece)) <= MAX_CHARACTERS]


def deal_text(pieces: Sequence[str], counts: Sequence[int], folder: Path) -> None:
    """Writes the pieces, dealt out one by one, to `folder/<nodes>/<node>.txt` for every count."""
    for count in counts:
        for number, name in enumerate(node_names(count)):
            write_text(folder / str(count) / f"{name}.txt", "\n\n".join(pieces[number::count]))


def run_cell(recipe: Recipe, cell: Cell, texts: Path, memory: Path) -> CellResult:
    """Runs a cell in a temporary folder and returns what came of it; whatever the run raises is a result.

    Args:
        recipe: What the cells have in common.
        cell: What this one varies.
        texts: Where `deal_text` wrote.
        memory: Where honest answers are kept for other cells of this recipe and these texts.
    """
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="trfmoe-drill-") as temporary:
        folder = RunFolder.create(Path(temporary), cell_recipe(recipe, cell, Path(temporary)))
        clock = VirtualClock()
        reason = ""
        try:
            run(_grid(folder, cell, texts, memory, clock), folder, Clock(now=clock.now, sleep=clock.sleep))
        except Exception as error:  # noqa: BLE001  An exception that ends a run is what the drill looks for.
            reason = f"{type(error).__name__}: {error}"
        events = read_events(folder.events_path) if folder.events_path.exists() else []
    return _result(cell, events, reason, time.process_time() - started)


def cell_recipe(recipe: Recipe, cell: Cell, folder: Path) -> Recipe:
    """Returns the recipe of a cell: the given one with the cell's rule, seed and number of nodes."""
    changes = {
        "name": "drill",
        "run_root": str(folder),
        "vote": cell.rule,
        "seed": cell.seed,
        "rounds": recipe.rounds.model_copy(update={"reply_deadline_s": REPLY_DEADLINE_S}),
        "nodes": [],
        "num_nodes": cell.nodes,
        "witness": _witness(recipe) if cell.rule == "majority" else None,
        "log": recipe.log.model_copy(update={"wandb": "off"}),
    }
    return recipe.model_copy(update=changes)


def _witness(recipe: Recipe) -> WitnessConfig | None:
    """Returns the recipe's witness with a salt that is the same in every cell, so that cells can be compared."""
    if recipe.witness is None:
        return None
    return recipe.witness.model_copy(update={"salt": recipe.witness.salt or "the drill's own salt"})


def node_configs(cell: Cell, texts: Path, folder: Path) -> list[dict[str, Any]]:
    """Returns Flower's configuration of every node: its text, its folders, and its fault if it has one."""
    drill = FAULTS[cell.fault].drill
    fault = {f"drill-{key}": value for key, value in drill.model_dump(exclude_none=True).items()} if drill else {}
    liars = liars_of(cell)
    return [
        {
            "name": name,
            "data": str(texts / str(cell.nodes) / f"{name}.txt"),
            "state-dir": str(folder / "state"),
            "cache-dir": str(texts / "cache"),
            **(fault if name in liars else {}),
        }
        for name in node_names(cell.nodes)
    ]


def _grid(folder: RunFolder, cell: Cell, texts: Path, memory: Path, clock: VirtualClock) -> InProcessGrid:
    fault = FAULTS[cell.fault]
    names = node_names(cell.nodes)
    liars = frozenset(names.index(name) + 1 for name in liars_of(cell))

    def latency_s(node_id: int, message: Message) -> float:
        return fault.latency_s if node_id in liars and message.metadata.message_type == MessageType.TRAIN else 0.0

    return InProcessGrid(
        remembering_app(memory),
        node_configs(cell, texts, folder.path),
        {},
        conspire=Conspiracy(attack=fault.conspiracy, liars=liars) if fault.conspiracy else None,
        latency_s=latency_s,
        now=clock.now,
    )


def _result(cell: Cell, events: list[dict[str, Any]], reason: str, seconds: float) -> CellResult:
    finished = [event for event in events if event["event"] == "run_finished"]
    ended = bool(finished) and finished[-1]["outcome"] == "completed"
    rounds = [event["round"] for event in events if event["event"] == "round_committed"]
    last: dict[str, Any] = next(
        (e["nodes"] for e in reversed(events) if e["event"] == "evaluated" and e["round"] == max(rounds, default=-1)),
        {},
    )
    named: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for event in events:
        if event["event"] == "verdicts":
            columns = ("outvoted", "missing", "invalid")
            names = [name for verdict in event["verdicts"] for column in columns for name in verdict[column]]
            lost.update(names)
            named.update(set(names))
    liars = liars_of(cell)
    losses = {name: measured["loss"] for name, measured in last.items() if name not in liars}
    return CellResult(
        cell=cell,
        ended=ended,
        reason=reason or ("" if ended else "the run was not completed"),
        losses=losses,
        named=dict(named),
        lost_blocks=dict(lost),
        seconds=seconds,
    )
