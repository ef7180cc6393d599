"""`trfmoe import`: a run that begins with the weights of a folder that transformers opens."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption, PdfsOption, SetOption

if TYPE_CHECKING:
    from trfmoe_core.config import ModelConfig, Recipe


def import_model(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of a stock model: safetensors, config.json, tokenizer.json."),
    ],
    config: Annotated[Path, typer.Argument(help="Recipe of the run; the folder says its model and tokenizer.")] = Path(
        "configs/three_nodes.yaml"
    ),
    context: Annotated[
        int | None, typer.Option(min=8, help="Tokens a sequence in training; without it, the folder's.")
    ] = None,
    experts: Annotated[int | None, typer.Option(min=1, help="Experts a layer made of a dense model (8).")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts a token, of a dense model (2).")] = None,
    slices: Annotated[
        int | None, typer.Option(min=1, help="Slices of the dense network; each becomes an expert (1: the whole).")
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Also make an expert that every token takes.")] = False,
    noise: Annotated[float | None, typer.Option(help="Noise on each expert, as a share of its spread (0).")] = None,
    reinitialise: Annotated[float | None, typer.Option(help="Share of each expert's neurons to draw anew (0).")] = None,
    low_rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of experts that are small changes of the dense network.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(min=0, help="Multiplies these changes by ALPHA / rank (twice the rank).")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    pdfs: PdfsOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a run folder that begins with the weights of a stock model.

    Families with experts: mixtral, qwen2_moe, qwen3_moe, olmoe, flex_olmo. A dense model (llama, mistral, qwen2, qwen3,
    olmo2) is turned into a mixture of experts that computes the same before its first step.
    """
    from scripts.run.federated_run import resolve
    from scripts.run.models.importing import start_run
    from scripts.terminal.output import Output
    from server.run_folder.models import imported_settings, run_tokenizer
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.model.stock.upcycling import Upcycling

    output = Output(as_json)
    wished: dict[str, Any] = {
        "experts": experts,
        "top_k": top_k,
        "slices": slices,
        "noise": noise,
        "reinitialise": reinitialise,
        "low_rank": low_rank,
        "alpha": alpha,
    }
    wished = {name: value for name, value in wished.items() if value is not None} | ({"shared": True} if shared else {})
    for override in overrides:
        if override.startswith(("model.", "data.tokenizer")):
            raise ConfigError(f"--set {override}: {folder} says what the model and its tokenizer are; leave it out")
    upcycling = Upcycling(**wished) if wished else None
    asked = resolve(config, overrides, pdfs)
    # Said before the work, so that nobody waits for a run that lacks its text.
    if missing := _missing_data(asked):
        Output.warning(
            f"{config} names text that is not on this machine: {', '.join(missing)}. To train here, give your own with "
            "--pdfs FOLDER in this command, or name it in recipe.yaml of the run folder before the run begins"
        )
    run = start_run(folder, asked, context, upcycling)
    path = shlex.quote(str(run.path))
    output.line(f"run folder {run.path}: begins with the weights of {folder}")
    kept = imported_settings(run)
    seen = kept.config.get("max_position_embeddings") if kept else None
    tokenizer = run_tokenizer(run)
    for remark in (
        *(kept.remarks if kept else ()),
        *context_remarks(asked.model, run.recipe.model.context, context, seen),
        *([f"tokenizer of {folder}: {tokenizer.remark}"] if tokenizer.remark else []),
    ):
        Output.warning(remark)
    output.line(f"train it together: trfmoe simulate --run-dir {path}")
    output.line(f"or here alone:     trfmoe train --run-dir {path}")
    output.result({"outcome": "completed", "run_dir": str(run.path), "exit_code": 0})


def context_remarks(asked: "ModelConfig", context: int, typed: int | None, seen: int | None) -> list[str]:
    """Returns what to say of the length of training sequences.

    Args:
        asked: The model of the recipe, whose place the folder's takes.
        context: Tokens a sequence of the run.
        typed: `--context`.
        seen: The most positions that the folder's model was made for; None: its config.json does not say it.
    """
    if typed is not None and seen is not None and typed > seen:
        return [
            f"--context {typed}: the folder's model was made for {seen} positions and has never seen later ones; it "
            f"has to learn them, and --context {seen} spares it that"
        ]
    if typed is not None or "context" not in asked.model_fields_set or asked.context == context:
        return []
    if asked.context > context:
        return [
            f"model.context: the recipe says {asked.context} tokens a sequence, but the folder's model was made for "
            f"{context} positions; the run trains with {context}"
        ]
    return [
        f"model.context: the recipe says {asked.context} tokens a sequence and the folder {context}; the run trains "
        f"with {context}, and import with --context {asked.context} takes the recipe's, which needs less memory"
    ]


def _missing_data(recipe: "Recipe") -> list[str]:
    """Returns the files and folders of the recipe's nodes that are not on this machine."""
    entries = [entry for node in recipe.nodes for entry in node.data] + list(recipe.data.sources)
    return [entry for entry in entries if isinstance(entry, str) and not Path(entry).expanduser().exists()]
