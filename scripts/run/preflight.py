"""Finds out what cannot work before anything is started: paths, folders, tokenizer, every node's data."""

import tempfile
from collections import Counter
from pathlib import Path

from clients.settings import cache_folder
from scripts.run.simulation import app_folder
from scripts.terminal.output import Output
from scripts.terminal.progress import DataProgress
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.counts import counted
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.documents.reports import FileReport, shortened
from trfmoe_core.data.formats.base import format_of
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import Tokenizer, check_vocabulary, load_tokenizer
from trfmoe_core.errors import ConfigError, DataError, RunFolderError
from trfmoe_core.places import cache_home, expand

LISTED_FILES = 16
LONGEST_PATH = 240


def find_recipe(given: Path) -> Path:
    """Returns the recipe that a user means: a path from here, a path in this project, or a bare name in configs/.

    Raises:
        ConfigError: there is none.
    """
    root = app_folder()
    candidates = (given, root / given, root / "configs" / f"{given}.yaml")
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ConfigError(f"{given}: there is no such recipe; trfmoe configs ls names those that come with the project")
    return found


def check_run_root(root: Path) -> None:
    """Makes sure that run folders can be made below `root`.

    Raises:
        RunFolderError: when they cannot.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise RunFolderError(
            f"run_root {root}: cannot be written ({error.strerror or error}); choose another with --set run_root=DIR"
        ) from error


def check_run_root_is_writable(root: Path) -> None:
    """Makes sure that run folders could be made below `root`, and makes nothing.

    Raises:
        RunFolderError: they could not.
    """
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        what = "is no folder" if not there.is_dir() else f"cannot be written ({error.strerror or error})"
        raise RunFolderError(f"run_root {root}: {there} {what}; choose another with --set run_root=DIR") from error


def prepare_nodes(recipe: Recipe, output: Output, choosable: bool = False) -> dict[str, Corpus]:
    """Returns every node's corpus, prepared into the cache that the simulated nodes read, and shows their files.

    Args:
        recipe: The run.
        output: Where the files are shown.
        choosable: Whether --pdfs can name other text: not where a run goes on.

    Raises:
        ConfigError: the recipe lists no nodes.
        DataError: a tokenizer or a node's data cannot be used, or is not here; the message names the node.
    """
    if not recipe.nodes:
        raise ConfigError(
            "nodes: the recipe lists none, and a simulation needs to know each node's data; "
            "add them, or give --pdfs DIR once a node"
        )
    keep_offline(recipe.data)
    if choosable and (lacks := [f"{node.name} ({path})" for node in recipe.nodes for path in _missing(node)]):
        raise DataError(
            f"nodes: no such file or folder: {', '.join(lacks)}; correct the paths, or give --pdfs FOLDER for text "
            "of your own"
        )
    corpora = {node.name: _prepare(node, recipe, output) for node in recipe.nodes}
    for path in recipe.witness.data if recipe.witness else ():
        with DataProgress(output) as progress:
            tokenizer = load_tokenizer(recipe.data.tokenizer)
            corpus = prepare_corpus([path], recipe.data, tokenizer, cache_home(), progress)
        show_files(f"the witness in {path}", corpus, output)
    return corpora


def show_files(name: str, corpus: Corpus, output: Output) -> None:
    """Writes what became of a node's files.

    After they were read just now, one line each when they are few, else what went wrong. If nothing has changed since
    they were read, only the counts.
    """
    output.line(
        f"data of {name}: {corpus.train_tokens:,} train tokens, {corpus.held_out_tokens:,} held out "
        f"({corpus.leaked} pieces of them also in train), a bigram model needs "
        f"{corpus.bigram_bits_per_byte:.4f} bits/byte; {counts(corpus.files)}"
    )
    listed = corpus.files if corpus.fresh else []
    if len(listed) > LISTED_FILES:
        listed = [report for report in corpus.files if report.status != "ok"][:LISTED_FILES]
    for report in listed:
        output.line("  " + file_line(report))
    for note in corpus.notes:
        output.line(f"  note: {note}")
    same = "" if corpus.fresh else "unchanged since they were read; "
    output.line(f"  {same}every file: {corpus.extract}")


def file_line(report: FileReport) -> str:
    """Returns one line about one file."""
    pages = f", {counted(report.pages, format_of(report.kind).part)}" if report.pages else ""
    characters = f", {report.characters:,} characters" if report.characters else ""
    detail = f" ({report.detail})" if report.detail else ""
    return f"{report.status:<14} {shortened(report.path, LONGEST_PATH)}{pages}{characters}{detail}"


def counts(files: list[FileReport]) -> str:
    """Returns, for instance, `12 files: 10 ok, 2 broken`."""
    statuses = sorted(Counter(report.status for report in files).items())
    kinds = ", ".join(f"{number} {status}" for status, number in statuses)
    return f"{counted(len(files), 'file')}: {kinds}"


def _missing(node: NodeSettings) -> list[str]:
    return [entry for entry in node.data if isinstance(entry, str) and not expand(entry).exists()]


def _prepare(node: NodeSettings, recipe: Recipe, output: Output) -> Corpus:
    try:
        tokenizer: Tokenizer = load_tokenizer(node.tokenizer or recipe.data.tokenizer)
        check_vocabulary(recipe.model, tokenizer)
        with DataProgress(output) as progress:
            corpus = prepare_corpus(node.data, recipe.data, tokenizer, cache_folder(node), progress)
    except DataError as error:
        raise DataError(f"node {node.name}: {error}") from error
    show_files(node.name, corpus, output)
    warn_of_little_text(node.name, corpus, recipe, output)
    return corpus


def warn_of_little_text(name: str, corpus: Corpus, recipe: Recipe, output: Output) -> None:
    """Writes a warning if the text is shorter than one batch."""
    batch = recipe.training.batch_size * recipe.model.context
    if corpus.train_tokens < batch:
        output.line(
            f"  warning: {corpus.train_tokens:,} train tokens are less than one batch of {batch:,}: {name} "
            "sees the same text again in every step, and its figures say little; give it more text",
            style="bold",
        )
