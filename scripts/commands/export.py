"""`trfmoe export`: a run's model as a folder that stock transformers opens."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scripts.commands.generate import LastOption, RoundOption, RunArgument
from scripts.terminal.options import JsonOption

if TYPE_CHECKING:
    import torch

    from server.run_folder.folder import RunFolder
    from trfmoe_core.model.transformer import MoETransformer

TOLERANCE = 1e-5
"""Largest difference between transformers' logits and ours, in float32."""
CHECKED_TOKENS = 64


def export(
    run: RunArgument = None,
    out: Annotated[
        Path | None, typer.Argument(help="Folder to write; must be new or empty. A single path is this one.")
    ] = None,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the weights.")] = "float32",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Open the result with transformers and compare logits.")
    ] = True,
    number: RoundOption = None,
    last: LastOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's model as a folder that stock transformers opens: Mixtral, or the family that has its parts."""
    from scripts.run.run_folders import run_with_model
    from scripts.terminal.output import Output
    from server.run_folder.models import better_start, choose_round, unit_of
    from trfmoe_core.model.stock.exporting import export_remarks

    output = Output(as_json)
    if out is None:
        run, out = None, _target(run)
    folder = run_with_model(run)
    for remark in export_remarks(folder.recipe.model):
        Output.warning(remark)
    chosen = choose_round(folder, number, last)
    if remark := better_start(folder, chosen):
        Output.warning(remark)
    difference = export_round(folder, chosen, out, dtype, check)
    output.line(f"the model after {unit_of(folder)} {chosen} of {folder.path} is in {out}")
    if difference is not None:
        output.line(f"transformers opens it and gives the same logits (largest difference {difference:.1e})")
    output.line(f"open it with AutoModelForCausalLM.from_pretrained({str(out)!r}), or serve it:")
    output.line(f"  transformers serve {shlex.quote(str(out))}      or      vllm serve {shlex.quote(str(out))}")
    result = {"outcome": "completed", "round": chosen, "out": str(out.absolute()), "max_difference": difference}
    output.result({**result, "dtype": dtype, "exit_code": 0})


def _target(path: Path | None) -> Path:
    """Returns the folder to write, where the latest run is exported.

    Raises:
        ConfigError: none is named.
    """
    from trfmoe_core.errors import ConfigError

    if path is None or (path / "recipe.yaml").is_file():
        raise ConfigError(
            "no folder to write is named; give one: trfmoe export RUN FOLDER, or for the latest run "
            "trfmoe export FOLDER"
        )
    return path


def export_round(
    folder: "RunFolder", number: int, out: Path, dtype: Literal["float32", "bfloat16"] = "float32", check: bool = True
) -> float | None:
    """Writes the model after a round to `out`, whole or not at all; returns the largest difference of the check.

    Raises:
        RunFolderError: `out` holds something already, or cannot be written.
        RunError: transformers does not compute the same.
    """
    import torch

    from server.report.model_card import model_card
    from server.run_folder.models import imported_settings, load_model
    from trfmoe_core.atomic import new_folder, write_text
    from trfmoe_core.errors import RunFolderError
    from trfmoe_core.model.stock.exporting import export_model

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists already; name a new folder")
    model, tokenizer = load_model(folder, number)
    kept = imported_settings(folder)
    if kept and number:
        # Training here has taught the model to end a piece with the token that begins the next.
        kept = kept.also_ended_by(tokenizer.bos_id)
    weights_type: torch.dtype = getattr(torch, dtype)
    try:
        with new_folder(out.absolute()) as fresh:
            export_model(model, tokenizer, fresh, dtype=weights_type, kept=kept)
            write_text(fresh / "README.md", model_card(folder, number, model))
            return _difference(model, weights_type, fresh) if check else None
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be written ({error.strerror or error}); choose another") from error


def _difference(model: "MoETransformer", weights_type: "torch.dtype", out: Path) -> float:
    """Returns the largest difference of transformers' logits to those of `model` with its weights rounded."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from trfmoe_core.errors import RunError

    disable_progress_bar()  # type: ignore[no-untyped-call]

    # Also experts whose widths transformers' fast kernel refuses are computed by `eager`.
    theirs = AutoModelForCausalLM.from_pretrained(
        out, local_files_only=True, dtype=torch.float32, experts_implementation="eager"
    )
    # The parameters alone: the tables of the rotary embeddings are never rounded.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(weights_type))
    rows = theirs.config.vocab_size
    length = min(CHECKED_TOKENS, model.config.context)
    tokens = torch.randint(0, rows, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = float((theirs(input_ids=tokens).logits - model(tokens).logits_BTV).abs().max())
    if not difference <= TOLERANCE:
        raise RunError(f"transformers' logits differ by {difference:.2e} (limit {TOLERANCE:g}); please report this")
    return difference
