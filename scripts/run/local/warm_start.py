"""`trfmoe train --from RUN`: a new run that begins with the weights of another one."""

from dataclasses import dataclass

from safetensors.torch import save_file

from scripts.run.run_folders import differences
from server.run_folder.folder import RunFolder
from server.run_folder.models import choose_round, load_model
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import Tokenizer, load_tokenizer
from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.transformer import MoETransformer

TRAINING_ONLY = frozenset(
    {"context", "balance", "balance_weight", "z_loss_weight", "init_std", "document_mask", "vocab_size"}
)
"""Settings of a model with which its weights still compute the same function."""


@dataclass(frozen=True)
class WarmStart:
    """The weights that a run begins with, and where they come from. The optimizer and the schedule begin anew."""

    source: RunFolder
    round: int
    unit: str
    model: MoETransformer
    tokenizer: Tokenizer
    own_recipe: bool
    """True if the new run's recipe is the source's own, and its tokenizer the source's copy."""

    @property
    def told(self) -> str:
        """Where the weights come from, in words."""
        return f"the run begins with the weights of {self.source.path} after {self.unit} {self.round}"

    def write(self, folder: RunFolder) -> None:
        """Writes the weights into the folder of a new run.

        Raises:
            RunFolderError: they cannot be written.
        """
        begun = {"run": str(self.source.path), "unit": self.unit, "round": self.round}
        folder.write_origin(**folder.origin(), **{"from": begun})
        if self.own_recipe:
            self.tokenizer.save(folder.tokenizer_path)
            data = folder.recipe.data.model_copy(update={"tokenizer": str(folder.tokenizer_path)})
            folder.write_recipe(folder.recipe.model_copy(update={"data": data}))
        try:
            temporary = folder.imported_path.with_suffix(".tmp")
            save_file(
                {name: weights.detach().contiguous() for name, weights in self.model.named_parameters()}, temporary
            )
            temporary.replace(folder.imported_path)
        except OSError as error:
            raise RunFolderError(f"{folder.path}: cannot be written ({error.strerror or error}); free space") from error


def warm_start(source: RunFolder, last: bool, own_recipe: bool) -> WarmStart:
    """Returns the best model of a run, or its newest.

    Raises:
        RunFolderError: the run has no model yet, or its checkpoint is damaged.
    """
    chosen = choose_round(source, last=last)
    model, tokenizer = load_model(source, chosen)
    unit = "step" if source.facts().started.get("mode") == "local" else "round"
    return WarmStart(source, chosen, unit, model, tokenizer, own_recipe)


def check_warm_start(start: WarmStart, recipe: Recipe) -> Recipe:
    """Returns the recipe of a run that begins with these weights.

    Raises:
        ConfigError: the recipe's model or tokenizer is another one.
    """
    there, here = start.source.recipe.model.model_dump(mode="json"), recipe.model.model_dump(mode="json")
    found = [one for one in differences(there, here) if one[0] not in TRAINING_ONLY]
    if found:
        raise ConfigError(
            f"--from {start.source.path}: its model is another one:\n  "
            + "\n  ".join(f"model.{key}: {old!r} there, {new!r} here" for key, old, new in found)
            + (
                "\nleave these settings out: the weights fit the model that they were trained in"
                if start.own_recipe
                else "\nchange these settings, or leave the recipe out to train the model as it is there"
            )
        )
    if start.own_recipe:
        name = str(start.source.tokenizer_path)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"tokenizer": name})})
    elif load_tokenizer(recipe.data.tokenizer).fingerprint != start.tokenizer.fingerprint:
        raise ConfigError(
            f"data.tokenizer: {recipe.data.tokenizer} is not the tokenizer of {start.source.path}, and its weights "
            f"fit no other; give {start.source.tokenizer_path}"
        )
    rows = start.model.vocab_size
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"vocab_size": rows})})
