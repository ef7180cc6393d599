"""Writes the model of a run as a folder that stock transformers opens, and compares what both compute."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from server.run_folder.departure import Departure
    from server.run_folder.folder import RunFolder
    from trfmoe_core.model.transformer import MoETransformer

TOLERANCE = 1e-5
"""Largest difference between transformers' logits and ours, in float32, as a share of the largest logit above 1."""
CHECKED_TOKENS = 64


def export_round(
    folder: "RunFolder",
    number: int,
    out: Path,
    dtype: Literal["float32", "bfloat16"] = "float32",
    check: bool = True,
    max_shard_bytes: int | None = None,
    departure: "Departure | None" = None,
) -> float | None:
    """Writes the model after a round to `out`, whole or not at all; returns the largest difference of the check.

    Args:
        folder: The run.
        number: The round.
        out: A new or empty folder.
        dtype: Type of the weights.
        check: False: the result is not opened, and nothing is returned.
        max_shard_bytes: Size of a file of weights, at most; None: 50 GB.
        departure: The node that is left out; None: nobody.

    Raises:
        RunFolderError: `out` holds something already, or cannot be written.
        RunError: transformers does not compute the same.
    """
    import torch

    from server.report.model_card import model_card
    from server.run_folder.departure import model_without
    from server.run_folder.models import imported_settings, load_model
    from trfmoe_core.atomic import new_folder, write_text
    from trfmoe_core.errors import RunFolderError
    from trfmoe_core.model.merging import merged
    from trfmoe_core.model.stock.exporting import export_model

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists already; name a new folder")
    model, tokenizer = model_without(folder, departure) if departure else load_model(folder, number)
    model = merged(model)
    kept = imported_settings(folder)
    if kept and number:
        # Training here has taught the model to end a piece with the token that begins the next.
        kept = kept.also_ended_by(tokenizer.bos_id)
    weights_type: torch.dtype = getattr(torch, dtype)
    try:
        with new_folder(out.absolute()) as fresh:
            export_model(model, tokenizer, fresh, dtype=weights_type, kept=kept, max_shard_bytes=max_shard_bytes)
            write_text(fresh / "README.md", model_card(folder, number, model, departure.told if departure else ()))
            return _difference(model, weights_type, fresh) if check else None
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be written ({error.strerror or error}); choose another") from error


def _difference(model: "MoETransformer", weights_type: "torch.dtype", out: Path) -> float:
    """Returns the largest difference of transformers' logits to those of `model` with its weights rounded.

    It is a share of the largest logit, or of 1 if that is smaller: float32 rounds large logits more coarsely.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from trfmoe_core.errors import RunError

    disable_progress_bar()  # type: ignore[no-untyped-call]

    # Also experts whose widths transformers' fast kernel refuses are computed by `eager`.
    theirs = AutoModelForCausalLM.from_pretrained(
        out, local_files_only=True, dtype=torch.float32, experts_implementation="eager"
    )
    # The weights alone: the tables of the rotary embeddings are never rounded.
    with torch.no_grad():
        for weights in model.named_weights().values():
            weights.copy_(weights.to(weights_type))
    rows = theirs.config.vocab_size
    length = min(CHECKED_TOKENS, model.config.context)
    tokens = torch.randint(0, rows, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours_BTV = model(tokens).logits_BTV
        difference = float((theirs(input_ids=tokens).logits - ours_BTV).abs().max() / ours_BTV.abs().max().clamp(min=1))
    if not difference <= TOLERANCE:
        raise RunError(f"transformers' logits differ by {difference:.2e} (limit {TOLERANCE:g}); please report this")
    return difference
