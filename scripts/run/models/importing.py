"""Makes a run that begins with the weights of a stock folder."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.run_folder.folder import RunFolder
    from trfmoe_core.config import Recipe
    from trfmoe_core.model.stock.upcycling import Upcycling


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
        save_file({name: weights.detach() for name, weights in model.named_weights().items()}, temporary)
        temporary.replace(run.imported_path)
    except OSError as error:
        raise RunFolderError(f"{run.path}: cannot be written ({error.strerror or error}); free space") from error
    return run
