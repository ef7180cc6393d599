"""`trfmoe generate`: text from a run's checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.simulate import JsonOption

if TYPE_CHECKING:
    from server.run_folder import RunFolder


def generate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    prompt: Annotated[str, typer.Option(help="How the text begins.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to draw at most.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most probable token.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from this share of the probability.")] = 0.95,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    number: Annotated[int | None, typer.Option("--round", help="This round's checkpoint instead of the best.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The newest checkpoint instead of the best.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate text with the model of a run."""
    from scripts.output import Output
    from scripts.run_folders import run_folder

    output = Output(as_json)
    folder = run_folder(run)
    chosen = choose_round(folder, number, last)
    text = generate_text(folder, chosen, prompt, max_tokens, temperature, top_p, seed)
    output.line(prompt + text)
    result = {"outcome": "completed", "round": chosen, "prompt": prompt, "text": text}
    output.result({**result, "run_dir": str(folder.path), "exit_code": 0})


def choose_round(folder: "RunFolder", number: int | None = None, last: bool = False) -> int:
    """Returns the round whose checkpoint is meant.

    Raises:
        RunFolderError: there is no such checkpoint.
    """
    from server.checkpoint import checkpoint_rounds
    from server.recorder import best_round, committed_rounds
    from trfmoe_core.errors import RunFolderError

    kept = sorted(set(checkpoint_rounds(folder.checkpoints_path)) & set(committed_rounds(folder)))
    if not kept:
        raise RunFolderError(f"{folder.path}: no round is committed yet; let the run go on until its first checkpoint")
    if number is not None:
        if number not in kept:
            raise RunFolderError(f"--round {number}: {folder.path} keeps the checkpoints of rounds {kept}; choose one")
        return number
    best = None if last else best_round(folder)
    return kept[-1] if best is None else best


def generate_text(
    folder: "RunFolder", number: int, prompt: str, max_tokens: int, temperature: float, top_p: float, seed: int
) -> str:
    """Returns the continuation of `prompt` by the checkpoint of a round."""
    import torch

    from server.checkpoint import load_checkpoint
    from trfmoe_core.data.tokenizer import load_tokenizer
    from trfmoe_core.model.generate import generate as draw
    from trfmoe_core.model.transformer import build_model

    recipe = folder.recipe
    own = folder.tokenizer_path
    tokenizer = load_tokenizer(str(own) if own.exists() else recipe.data.tokenizer)
    model = build_model(recipe.model, tokenizer.padded_vocab_size, recipe.seed)
    checkpoint = load_checkpoint(folder.checkpoints_path, number)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(checkpoint.weights[name])
    tokens = [tokenizer.bos_id, *(int(token) for token in tokenizer.encode(prompt))]
    drawn = draw(
        model, tokens, max_tokens, temperature, top_p, seed, stop_ids={tokenizer.bos_id}, num_ids=tokenizer.vocab_size
    )
    return tokenizer.decode(list(drawn))
