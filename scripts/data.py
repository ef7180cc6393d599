"""`trfmoe data`: makes sample data, and says what is in a folder before a node trains on it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scripts.simulate import JsonOption

data = typer.Typer(help="Make sample data, or look into data.", no_args_is_help=True)


@data.command()
def sample(folder: Annotated[Path, typer.Argument(help="Where to write it.")], as_json: JsonOption = False) -> None:
    """Build the sample data of three owners from what every Python installation carries. No download."""
    from scripts.output import Output
    from trfmoe_core.data.sample import build_sample

    output = Output(as_json)
    owners = build_sample(folder.expanduser().absolute())
    for owner in owners:
        output.line(str(owner))
    output.result({"outcome": "completed", "folders": [str(owner) for owner in owners], "exit_code": 0})


@data.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    tokenizer: Annotated[str, typer.Option(help="byte, or a Hugging Face tokenizer folder.")] = "byte",
    as_json: JsonOption = False,
) -> None:
    """Say what a node would get out of files and folders: one line a file."""
    from clients.node import cache_folder
    from scripts.output import Output
    from scripts.preflight import counts, file_line
    from trfmoe_core.config import DataConfig, NodeSettings
    from trfmoe_core.data.corpus import prepare_corpus
    from trfmoe_core.data.tokenizer import load_tokenizer

    output = Output(as_json)
    places = [str(path.expanduser().absolute()) for path in paths]
    name = tokenizer if tokenizer == "byte" else str(Path(tokenizer).expanduser().absolute())
    cache = cache_folder(NodeSettings.model_validate({"name": "inspect", "data": places}))
    corpus = prepare_corpus(places, DataConfig.model_validate({"tokenizer": name}), load_tokenizer(name), cache)
    for report in corpus.files:
        output.line(file_line(report))
    for note in corpus.notes:
        output.line(f"note: {note}")
    output.line(
        f"{counts(corpus.files)}; {corpus.train_tokens:,} train tokens, {corpus.held_out_tokens:,} held out, "
        f"byte bigram {corpus.bigram_bits_per_byte:.4f} bits/byte"
    )
    output.result(
        {
            "outcome": "completed",
            "files": [asdict(report) for report in corpus.files],
            "train_tokens": corpus.train_tokens,
            "held_out_tokens": corpus.held_out_tokens,
            "bigram_bits_per_byte": corpus.bigram_bits_per_byte,
            "notes": corpus.notes,
            "exit_code": 0,
        }
    )
