"""`trfmoe import`: a run that begins with the weights of a Mixtral-format folder."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JsonOption, PdfsOption, SetOption

if TYPE_CHECKING:
    from server.run_folder.folder import RunFolder
    from trfmoe_core.config import Recipe


def import_model(
    folder: Annotated[Path, typer.Argument(help="Mixtral-format folder: safetensors, config.json, tokenizer.json.")],
    config: Annotated[Path, typer.Argument(help="Recipe of the run; the folder says its model and tokenizer.")] = Path(
        "configs/three_nodes.yaml"
    ),
    context: Annotated[
        int | None, typer.Option(min=8, help="Tokens a sequence in training; without it, the folder's.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    pdfs: PdfsOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a run folder that begins with the weights of a Mixtral-format checkpoint."""
    from scripts.run.federated_run import resolve
    from scripts.terminal.output import Output
    from server.run_folder.models import imported_settings
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    for override in overrides:
        if override.startswith(("model.", "data.tokenizer")):
            raise ConfigError(f"--set {override}: {folder} says what the model and its tokenizer are; leave it out")
    run = start_run(folder, resolve(config, overrides, pdfs), context)
    recipe, path = shlex.quote(str(run.path / "recipe.yaml")), shlex.quote(str(run.path))
    output.line(f"run folder {run.path}: begins with the weights of {folder}")
    kept = imported_settings(run)
    for remark in kept.remarks if kept else ():
        Output.warning(remark)
    output.line(f"train it together: trfmoe simulate {recipe} --run-dir {path}")
    output.line(f"or here alone:     trfmoe train {recipe} --run-dir {path}")
    output.result({"outcome": "completed", "run_dir": str(run.path), "exit_code": 0})


def start_run(folder: Path, recipe: "Recipe", context: int | None) -> "RunFolder":
    """Returns a new run folder with the folder's weights, model and tokenizer, and everything else from `recipe`.

    Raises:
        RunFolderError: the folder is no Mixtral checkpoint that can be computed here.
        DataError: its tokenizer cannot be used.
        ConfigError: its tokenizer has more tokens than the model has rows.
    """
    from safetensors.torch import save_file

    from scripts.run.preflight import check_run_root
    from scripts.run.run_folders import new_run
    from trfmoe_core.atomic import write_text
    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.errors import ConfigError, RunFolderError
    from trfmoe_core.model.mixtral import import_mixtral
    from trfmoe_core.model.mixtral_settings import kept_settings

    model = import_mixtral(folder, context)
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
