"""Goes on with a run on one machine."""

from pathlib import Path

from scripts.run.local.recipe import local_recipe
from scripts.run.resuming import may_change, refuse_shorter
from scripts.run.run_folders import Difference, as_started, differences, find_run, refuse_differences
from server.run_folder.folder import RunFolder
from trfmoe_core.config import Recipe


def resumed_local_run(
    recipe: Recipe, run_dir: Path | None, new_text: bool
) -> tuple[RunFolder, Recipe, list[Difference]]:
    """Returns the run's folder, the recipe with which it goes on, and in what that differs from the one before.

    Args:
        recipe: As asked for now.
        run_dir: The run; None takes the latest of the recipe's name.
        new_text: Whether the text was named on the command line. If not, a run that was started with --pdfs keeps it.

    Raises:
        RunFolderError: there is no such run, or another process is writing it.
        ConfigError: it was started with another recipe, and not only with another length, schedule or log; or it is to
            have fewer steps than it has made.
    """
    folder = find_run(recipe, run_dir, "local")
    before = local_recipe(folder.recipe, []).model_copy(update={"name": recipe.name, "run_root": recipe.run_root})
    given = folder.origin().get("pdfs")
    if before.data.sources and given and not new_text:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": before.data.sources})})
    elif not before.data.sources:  # a run of an earlier release, started with --pdfs
        before = before.model_copy(update={"data": before.data.model_copy(update={"sources": recipe.data.sources})})
    recipe = as_started(_same_batch(recipe, before), before)
    found = differences(before.model_dump(mode="json"), recipe.model_dump(mode="json"))
    refuse_differences(folder, [one for one in found if not may_change(one[0])], "train")
    if recipe.training.epochs is None:  # the steps of an epoch are known when the text has been read
        refuse_shorter(folder, found, length(recipe), "step")
    with folder.lock():
        return folder, recipe, found


def length(recipe: Recipe) -> int:
    """Returns the steps of a run whose length is not given in epochs."""
    return recipe.training.budget(recipe.model.context, int(recipe.training.devices)) or recipe.total_steps


def _same_batch(recipe: Recipe, started: Recipe) -> Recipe:
    """Returns the recipe with the started one's devices and batch size where both have equal batches of all devices."""
    ours, theirs = recipe.training, started.training
    if ours.batch_size * int(ours.devices) != theirs.batch_size * int(theirs.devices):
        return recipe
    same = {"batch_size": theirs.batch_size, "devices": theirs.devices}
    return recipe.model_copy(update={"training": ours.model_copy(update=same)})
