"""`trfmoe data`: makes sample data, prepares data, says what is in them, and trains tokenizers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import JsonOption, SetOption
from trfmoe_core.places import expand

data = typer.Typer(help="Make sample data, prepare data, look into them.", no_args_is_help=True)

EntriesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="Files and folders, or mappings: '{path: papers, passwords: FILE}' for locked PDFs (one password a line), "
        "'{path: letters, encoding: cp1252}' for text that is no UTF-8, '{source: fineweb, weight: 2}' and others.",
    ),
]
ConfigOption = Annotated[Path | None, typer.Option(help="A recipe: its data settings, and its nodes' data.")]
NodeOption = Annotated[str | None, typer.Option(help="Only this node of the recipe.")]
TokenizerOption = Annotated[
    str | None, typer.Option(help="byte, a tokenizer folder, or a name on the hub, instead of the recipe's.")
]


@data.command()
def sample(folder: Annotated[Path, typer.Argument(help="Where to write it.")], as_json: JsonOption = False) -> None:
    """Build the sample data of three owners from what every Python installation carries. No download."""
    from scripts.terminal.output import Output
    from trfmoe_core.data.sample.owners import build_sample

    output = Output(as_json)
    owners = build_sample(expand(folder).absolute())
    for owner in owners:
        output.line(str(owner))
    output.result({"outcome": "completed", "folders": [str(owner) for owner in owners], "exit_code": 0})


@data.command()
def prepare(
    entries: EntriesArgument = [],  # noqa: B006
    config: ConfigOption = None,
    node: NodeOption = None,
    tokenizer: TokenizerOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Download, read and tokenize data into the cache, so that training starts at once. Goes on where it was killed."""
    from scripts.run.data.entries import chosen_data
    from scripts.run.data.view import show_summary, summary
    from scripts.run.preflight import show_files
    from scripts.terminal.output import Output

    output = Output(as_json)
    what = chosen_data(entries, config, node, tokenizer, overrides)
    found = {}
    for one in what.nodes:
        corpus, words = what.prepared(one, output)
        show_files(one.name, corpus, output)
        found[one.name] = summary(corpus, words)
        show_summary(found[one.name], output)
    output.result({"outcome": "completed", "nodes": found, "exit_code": 0})


@data.command()
def inspect(
    entries: EntriesArgument = [],  # noqa: B006
    config: ConfigOption = None,
    node: NodeOption = None,
    tokenizer: TokenizerOption = None,
    batch: Annotated[int, typer.Option(min=0, help="Which batch to show; 0 is the first.")] = 0,
    rows: Annotated[int, typer.Option(min=0, help="Rows of the batch to show; 0: no batch.")] = 2,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Say what a node would get out of data: one line a file, and where the rows of a batch come from."""
    from scripts.run.data import view as data_view
    from scripts.run.data.entries import chosen_data
    from scripts.run.preflight import counts, file_line
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    what = chosen_data(entries, config, node, tokenizer, overrides)
    if len(what.nodes) > 1:
        raise ConfigError(f"which node? Give --node with one of {', '.join(one.name for one in what.nodes)}")
    corpus, words = what.prepared(what.nodes[0], output)
    for report in corpus.files:
        output.line(file_line(report))
    for note in corpus.notes:
        output.line(f"note: {note}")
    found = data_view.summary(corpus, words)
    output.line(
        f"{counts(corpus.files)}; {corpus.train_tokens:,} train tokens, {corpus.held_out_tokens:,} held out, "
        f"a bigram model needs {corpus.bigram_bits_per_byte:.4f} bits/byte"
    )
    data_view.show_summary(found, output)
    if rows:
        found["sources"], found["rows"] = data_view.batch(what, what.nodes[0], corpus, words, batch, rows)
        data_view.show_batch(batch, found["sources"], found["rows"], output)
    output.result({"outcome": "completed", **found, "exit_code": 0})


@data.command()
def tokenizer(
    entries: EntriesArgument,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens, at most; 4096 suits a few megabytes.")] = 4096,
    max_mb: Annotated[int, typer.Option(min=1, help="Megabytes of text to learn from, at most.")] = 256,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Train a byte-level BPE tokenizer on text that may be seen. The same text gives the same files."""
    from scripts.run.data.entries import chosen_data
    from scripts.terminal.output import Output
    from trfmoe_core.data.tokenizers.train import LEAK_WARNING, train_bpe

    output = Output(as_json)
    output.line(f"warning: {LEAK_WARNING}", style="bold")
    what = chosen_data(entries, None, None, None, overrides)
    corpus, words = what.prepared(what.nodes[0], output)
    size = 0

    def texts() -> Iterator[str]:
        """Training text only: what is held out stays unseen here too."""
        nonlocal size
        for source in corpus.sources:
            for piece in range(source.train.num_pieces):
                size += int(source.train.piece_bytes[piece])
                if size > max_mb * 1_000_000:
                    return
                yield words.decode(source.train.piece(piece).tolist())

    folder = expand(out).absolute()
    trained = train_bpe(texts(), vocab_size, folder.name)
    trained.save(folder)
    if trained.vocab_size < vocab_size:
        output.line(f"note: the text gives only {trained.vocab_size:,} of the {vocab_size:,} tokens asked for")
    output.line(f"{folder}: {trained.vocab_size:,} tokens, fingerprint {trained.fingerprint[:12]}")
    output.line(f"use it with --set data.tokenizer={folder}, and copy the folder to every node")
    output.result(
        {
            "outcome": "completed",
            "folder": str(folder),
            "vocab_size": trained.vocab_size,
            "fingerprint": trained.fingerprint,
            "warning": LEAK_WARNING,
            "exit_code": 0,
        }
    )
