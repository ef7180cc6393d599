"""`trfmoe generate`: text from a run's checkpoint."""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JsonOption

if TYPE_CHECKING:
    from trfmoe_core.data.tokenizers import Tokenizer
    from trfmoe_core.model.transformer import MoETransformer

RunArgument = Annotated[Path | None, typer.Argument(help="Run folder, or its name; without one, the latest run.")]
RoundOption = Annotated[int | None, typer.Option("--round", help="This round's checkpoint instead of the best.")]
LastOption = Annotated[bool, typer.Option("--last", help="The newest checkpoint instead of the best.")]


def generate(
    run: RunArgument = None,
    prompt: Annotated[str | None, typer.Option(help="How the text begins; without it, standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file that holds the prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to draw at most.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most probable token.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from this share of the probability.")] = 0.95,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Show the text while it is drawn.")] = False,
    number: RoundOption = None,
    last: LastOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate text with the model of a run."""
    from scripts.run.run_folders import run_with_model
    from scripts.terminal.output import Output
    from server.run_folder.models import better_start, choose_round, end_ids, load_model
    from trfmoe_core.data.documents.clean import normalize

    output = Output(as_json)
    folder = run_with_model(run)
    chosen = choose_round(folder, number, last)
    if remark := better_start(folder, chosen):
        Output.warning(remark)
    start = normalize(read_prompt(prompt, file), folder.recipe.data.normalization)
    model, tokenizer = load_model(folder, chosen)
    stops = end_ids(folder, tokenizer)
    pieces = []
    if stream:
        output.part(start)
    for piece in draw_text(model, tokenizer, start, max_tokens, temperature, top_p, seed, stops):
        pieces.append(piece)
        if stream:
            output.part(piece)
    text = "".join(pieces)
    output.line("" if stream else start + text)
    result = {"outcome": "completed", "round": chosen, "prompt": start, "text": text}
    output.result({**result, "run_dir": str(folder.path), "exit_code": 0})


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """Returns the prompt: as given, from a file, or from standard input.

    Raises:
        ConfigError: both are given, the file cannot be read, or nobody writes to standard input.
    """
    from trfmoe_core.errors import ConfigError

    if prompt is not None and file is not None:
        raise ConfigError(f"--prompt and --file {file} are both given; leave one out")
    if prompt is not None:
        return prompt
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"--file {file}: cannot be read as UTF-8 text ({error}); give another") from error
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("no prompt; give --prompt TEXT or --file FILE, or write it to standard input")
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def draw_text(
    model: "MoETransformer",
    tokenizer: "Tokenizer",
    prompt: str,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    stop_ids: Collection[int] | None = None,
) -> Iterator[str]:
    """Yields the continuation of `prompt` in pieces of whole characters.

    A prompt goes in as the exported tokenizer encodes it, so also with a bos where that adds one. An empty one is a
    piece's beginning.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt: How the text begins.
        max_tokens: The most tokens to draw.
        temperature: 0 takes the most probable token.
        top_p: Draws from this share of the probability.
        seed: Of the draws.
        stop_ids: Tokens that end the text; None: the one that begins another piece.
    """
    from trfmoe_core.model.generate import generate as draw

    ids, shown = [], ""
    tokens = tokenizer.encode_prompt(prompt) or [tokenizer.bos_id]
    stops = {tokenizer.bos_id} if stop_ids is None else stop_ids
    for token in draw(
        model, tokens, max_tokens, temperature, top_p, seed, stop_ids=stops, num_ids=tokenizer.vocab_size
    ):
        ids.append(token)
        text = tokenizer.decode(ids)
        # A character may take several tokens; until its last one it reads as U+FFFD.
        if text.startswith(shown) and not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    text = tokenizer.decode(ids)
    yield text[len(shown) :]
