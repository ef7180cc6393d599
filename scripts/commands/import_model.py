"""`trfmoe import`: a run that begins with the weights of a folder that transformers opens."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption, PdfsOption, SetOption

if TYPE_CHECKING:
    from server.run_folder.folder import RunFolder
    from trfmoe_core.config import Recipe
    from trfmoe_core.model.stock.upcycling import Upcycling


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
    overrides: SetOption = [],  # noqa: B006
    pdfs: PdfsOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a run folder that begins with the weights of a stock model.

    Families with experts: mixtral, qwen2_moe, qwen3_moe, olmoe, flex_olmo. A dense model (llama, mistral, qwen2, qwen3,
    olmo2) is turned into a mixture of experts that computes the same before its first step.
    """
    from scripts.run.federated_run import resolve
    from scripts.terminal.output import Output
    from server.run_folder.models import imported_settings
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.model.stock.upcycling import Upcycling

    output = Output(as_json)
    wished: dict[str, Any] = {
        "experts": experts,
        "top_k": top_k,
        "slices": slices,
        "noise": noise,
        "reinitialise": reinitialise,
    }
    wished = {name: value for name, value in wished.items() if value is not None} | ({"shared": True} if shared else {})
    for override in overrides:
        if override.startswith(("model.", "data.tokenizer")):
            raise ConfigError(f"--set {override}: {folder} says what the model and its tokenizer are; leave it out")
    upcycling = Upcycling(**wished) if wished else None
    run = start_run(folder, resolve(config, overrides, pdfs), context, upcycling)
    recipe, path = shlex.quote(str(run.path / "recipe.yaml")), shlex.quote(str(run.path))
    output.line(f"run folder {run.path}: begins with the weights of {folder}")
    kept = imported_settings(run)
    for remark in kept.remarks if kept else ():
        Output.warning(remark)
    for place in _missing_data(run.recipe):
        Output.warning(
            f"{place}: the recipe names this text, and it is not here; import again with --pdfs FOLDER, or name your "
            f"own text in {recipe}"
        )
    output.line(f"train it together: trfmoe simulate --run-dir {path}")
    output.line(f"or here alone:     trfmoe train --run-dir {path}")
    output.result({"outcome": "completed", "run_dir": str(run.path), "exit_code": 0})


def _missing_data(recipe: "Recipe") -> list[str]:
    """Returns the files and folders of the recipe's nodes that are not on this machine."""
    entries = [entry for node in recipe.nodes for entry in node.data] + list(recipe.data.sources)
    return [entry for entry in entries if isinstance(entry, str) and not Path(entry).expanduser().exists()]


def start_run(folder: Path, recipe: "Recipe", context: int | None, upcycling: "Upcycling | None" = None) -> "RunFolder":
    """Returns a new run folder with the folder's weights, model and tokenizer, and everything else from `recipe`.

    Raises:
        RunFolderError: the folder is no model that can be computed here.
        DataError: its tokenizer cannot be used.
        ConfigError: its tokenizer has more tokens than the model has rows.
    """
    from safetensors.torch import save_file

    from scripts.run.preflight import check_run_root
    from scripts.run.run_folders import new_run
    from trfmoe_core.atomic import write_text
    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.errors import ConfigError, RunFolderError
    from trfmoe_core.model.stock.importing import import_model as read_folder
    from trfmoe_core.model.stock.kept import kept_settings

    model = read_folder(folder, context, upcycling)
    tokenizer = load_tokenizer(str(folder.absolute()))
    if tokenizer.vocab_size > model.vocab_size:
        raise ConfigError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and the model {model.vocab_size} rows; "
            "give a folder whose two parts belong together"
        )
    check_run_root(Path(recipe.run_root))
    run = new_run(recipe.model_copy(update={"model": model.config}))
    tokenizer.save(run.tokenizer_path)
    write_text(run.imported_settings_path, kept_settings(folder).to_json())
    data = recipe.data.model_copy(update={"tokenizer": str(run.tokenizer_path)})
    run.write_recipe(run.recipe.model_copy(update={"data": data}))
    try:
        temporary = run.imported_path.with_suffix(".tmp")
        save_file({name: weights.detach() for name, weights in model.named_parameters()}, temporary)
        temporary.replace(run.imported_path)
    except OSError as error:
        raise RunFolderError(f"{run.path}: cannot be written ({error.strerror or error}); free space") from error
    return run
