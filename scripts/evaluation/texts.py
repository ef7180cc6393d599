"""The texts that a model is scored on: files of any format that training reads, or what the nodes of a run hold out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.run.data.entries import read_entry
from trfmoe_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from trfmoe_core.config import NodeSettings
    from trfmoe_core.config.data import DataConfig

SHOWN_FILES = 20


@dataclass(frozen=True)
class ScoredTexts:
    """Texts with one score.

    Attributes:
        name: For people.
        texts: Cleaned as training cleans them.
    """

    name: str
    texts: list[str]


def texts_of_files(entry: str, config: "DataConfig", output: "Output") -> ScoredTexts:
    """Returns the text of all files of an entry of `data`, and warns of every file that gave none.

    Args:
        entry: A file, a folder, or a mapping such as `{path: letters, encoding: cp1252}`.
        config: How files are read and cleaned.
        output: For warnings and progress.

    Raises:
        DataError: Nothing can be read.
        ConfigError: The entry is no entry of `data`.
    """
    from clients.settings import cache_folder
    from scripts.terminal.progress import DataProgress
    from trfmoe_core.data.formats.reading import Reading
    from trfmoe_core.data.sources import OpenContext, open_sources
    from trfmoe_core.private import private_files

    settings = _settings(entry)
    texts: list[str] = []
    reports = []
    with private_files(), DataProgress(output) as progress:
        for source in open_sources(settings.data, OpenContext(config, cache_folder(settings), progress)):
            found = []
            for unit in source.units:
                reading = Reading(unit, config.normalization)
                # Training too reads a page break as the end of a line.
                texts += [document.text.replace("\f", "\n") for document in reading]
                found.append(reading.report)
            reports += source.reports(found)
    troubles = [report for report in reports if report.status not in ("ok", "duplicate", "system-file")]
    for report in troubles[:SHOWN_FILES]:
        output.warning(f"{report.path}: {report.status}{': ' * bool(report.detail)}{report.detail}")
    if len(troubles) > SHOWN_FILES:
        output.warning(f"{entry}: and {len(troubles) - SHOWN_FILES} other files; trfmoe data inspect lists them")
    texts = [text for text in texts if text]
    if not texts:
        raise DataError(f"{entry}: no file gave any text; trfmoe data inspect says what became of each")
    return ScoredTexts(entry, texts)


def held_out_texts(folder: "RunFolder", output: "Output") -> list[ScoredTexts]:
    """Returns what each node of a run holds out, as far as its text is on this machine.

    A node's pieces are those of its evaluations in the run, up to `data.evaluation_tokens`.

    Raises:
        ConfigError: The text of no node is here.
    """
    from clients.settings import cache_folder
    from scripts.terminal.progress import DataProgress
    from server.run_folder.models import run_tokenizer
    from trfmoe_core.data.batches.held_out import evaluation_pieces
    from trfmoe_core.data.prepare.corpus_cache import prepare_corpus

    recipe = folder.recipe
    tokenizer = run_tokenizer(folder)
    found = []
    for node in _owners(folder):
        if missing := _missing(node):
            output.warning(f"{node.name}: its text is not on this machine ({missing[0]}); it is left out")
            continue
        with DataProgress(output) as progress:
            corpus = prepare_corpus(node.data, recipe.data, tokenizer, cache_folder(node), progress)
        stores, weights = corpus.held_out_stores()
        pieces = evaluation_pieces(stores, weights, recipe.data.evaluation_tokens)
        texts = [tokenizer.decode(stores[store].piece(piece)[1:].tolist()) for store, piece in pieces]
        found.append(ScoredTexts(f"{node.name}, held out", texts))
    if not found:
        raise ConfigError(f"{folder.path}: the text of no node is on this machine; name files with --data")
    return found


def trained_on(entry: str, folder: "RunFolder") -> list[str]:
    """Returns the nodes of a run that have, below their own data, something of an entry: they trained on most of it."""
    typed = {Path(path) for path in _paths(_settings(entry))}
    found = []
    for node in _owners(folder):
        own = {Path(path) for path in _paths(node)}
        if any(one.is_relative_to(two) or two.is_relative_to(one) for one in typed for two in own):
            found.append(node.name)
    return found


def _owners(folder: "RunFolder") -> list["NodeSettings"]:
    """Returns the nodes of a run; a run on one machine has one."""
    from scripts.run.data.entries import TYPED
    from trfmoe_core.config import NodeSettings

    recipe = folder.recipe
    alone = [NodeSettings.model_validate({"name": TYPED, "data": recipe.data.sources})] if recipe.data.sources else []
    return [*recipe.nodes, *alone]


def _settings(entry: str) -> "NodeSettings":
    from scripts.run.data.entries import TYPED
    from trfmoe_core.config import NodeSettings
    from trfmoe_core.config.load import validate
    from trfmoe_core.places import expand

    settings = validate(NodeSettings, {"name": TYPED, "data": [read_entry(entry)]}, "--data")
    return settings.relocated(lambda path: str(expand(path).absolute()))


def _paths(node: "NodeSettings") -> Sequence[str]:
    return [
        str(path) for entry in node.data if (path := entry if isinstance(entry, str) else getattr(entry, "path", None))
    ]


def _missing(node: "NodeSettings") -> list[str]:
    return [path for path in _paths(node) if not Path(path).exists()]
