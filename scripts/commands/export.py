"""`trfmoe export`: a run's model as a folder that stock transformers opens."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scripts.commands.generate import LastOption, RoundOption
from scripts.terminal.options import JsonOption

if TYPE_CHECKING:
    from server.run_folder.folder import RunFolder
    from trfmoe_core.model.transformer import MoETransformer

TOLERANCE = 1e-5
"""Largest difference between transformers' logits and ours, in float32."""
CHECKED_TOKENS = 64


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the weights.")] = "float32",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Open the result with transformers and compare logits.")
    ] = True,
    number: RoundOption = None,
    last: LastOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's model as a stock Mixtral folder: safetensors, configuration, tokenizer."""
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.run_folder.models import choose_round

    output = Output(as_json)
    folder = run_folder(run)
    chosen = choose_round(folder, number, last)
    difference = export_round(folder, chosen, out, dtype, check)
    output.line(f"the model after round {chosen} of {folder.path} is in {out}")
    if difference is not None:
        output.line(f"transformers opens it and gives the same logits (largest difference {difference:.1e})")
    output.line(f"open it with AutoModelForCausalLM.from_pretrained({str(out)!r}), or serve it:")
    output.line(f"  transformers serve {shlex.quote(str(out))}      or      vllm serve {shlex.quote(str(out))}")
    result = {"outcome": "completed", "round": chosen, "out": str(out.absolute()), "max_difference": difference}
    output.result({**result, "dtype": dtype, "exit_code": 0})


def export_round(
    folder: "RunFolder", number: int, out: Path, dtype: Literal["float32", "bfloat16"] = "float32", check: bool = True
) -> float | None:
    """Writes the model after a round to `out`, whole or not at all; returns the largest difference of the check.

    Raises:
        RunFolderError: `out` holds something already, or cannot be written.
        RunError: transformers does not compute the same.
    """
    import torch

    from server.run_folder.models import load_model
    from trfmoe_core.atomic import new_folder
    from trfmoe_core.errors import RunFolderError
    from trfmoe_core.model.mixtral import export_mixtral

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists already; name a new folder")
    model, tokenizer = load_model(folder, number)
    try:
        with new_folder(out.absolute()) as fresh:
            export_mixtral(model.to(getattr(torch, dtype)), folder.recipe.model, tokenizer, fresh)
            return _difference(model.float(), fresh) if check else None
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be written ({error.strerror or error}); choose another") from error


def _difference(model: "MoETransformer", out: Path) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    from trfmoe_core.errors import RunError

    theirs = AutoModelForCausalLM.from_pretrained(out, local_files_only=True, dtype=torch.float32)
    rows = theirs.config.vocab_size
    length = min(CHECKED_TOKENS, theirs.config.max_position_embeddings)
    tokens = torch.randint(0, rows, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = float((theirs(input_ids=tokens).logits - model(tokens).logits_BTV).abs().max())
    if not difference <= TOLERANCE:
        raise RunError(f"transformers' logits differ by {difference:.2e} (limit {TOLERANCE:g}); please report this")
    return difference
