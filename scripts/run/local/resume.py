"""Goes on with a run on one machine, and takes over the settings that may change within it, such as its length."""

from collections.abc import Sequence
from pathlib import Path

from scripts.run.local.recipe import local_recipe
from scripts.run.run_folders import Difference, as_started, differences, find_run, refuse_differences
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Journal
from trfmoe_core.config import Recipe, recipe_hash
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.schedule import learning_rate

_LENGTHS = ("training.steps", "training.tokens", "training.epochs", "rounds.num_rounds")
_SCHEDULE = ("training.learning_rate", "training.min_learning_rate", "training.warmup_steps", "training.schedule")
_ROOMS = ("local.", "log.")


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
    refuse_differences(folder, [one for one in found if not _may_change(one[0])], "train")
    if recipe.training.epochs is None:  # the steps of an epoch are known when the text has been read
        refuse_shorter(folder, found, length(recipe))
    with folder.lock():
        return folder, recipe, found


def change_settings(folder: RunFolder, recipe: Recipe, changed: Sequence[Difference], total_steps: int) -> str:
    """Writes changed settings into the run's recipe and journal; returns what changed as one sentence.

    Args:
        folder: The run.
        recipe: With the changed settings.
        changed: What they are.
        total_steps: The new length of the run.

    Raises:
        ConfigError: the run has made as many steps as that already.
    """
    facts = folder.facts()
    refuse_shorter(folder, changed, total_steps)
    done, before = max(facts.committed, default=0), int(facts.started.get("num_rounds") or 0)
    rate = learning_rate(done, total_steps, recipe.training)
    old = learning_rate(max(0, done - 1), before, folder.recipe.training) if before else rate
    text = (
        f"settings changed after step {done}: "
        + ", ".join(f"{key} from {_shown(was)} to {_shown(now)}" for key, was, now in changed)
        + f"; the learning rate was {old:.3g} and goes on at {rate:.3g} by the {recipe.training.schedule} schedule "
        f"over {counted(total_steps, 'step')}"
    )
    with folder.lock():
        journal = Journal(folder.events_path)
        journal.append(
            "recipe_changed",
            round=done,
            text=text,
            changes={key: [was, now] for key, was, now in changed},
            before=folder.recipe_digest(),
            recipe_hash=recipe_hash(recipe),
        )
        journal.close()
        folder.write_recipe(recipe)
    return text


def length(recipe: Recipe) -> int:
    """Returns the steps of a run whose length is not given in epochs."""
    return recipe.training.budget(recipe.model.context, int(recipe.training.devices)) or recipe.total_steps


def refuse_shorter(folder: RunFolder, changed: Sequence[Difference], total_steps: int) -> None:
    """Refuses to make a run shorter than it is.

    Args:
        folder: The run.
        changed: Settings that differ from those of its last start.
        total_steps: The length that they give it.

    Raises:
        ConfigError: it has made as many steps as that already.
    """
    done = max(folder.facts().committed, default=0)
    lengths = [one for one in changed if one[0] in _LENGTHS]
    if not lengths or done < total_steps:
        return
    key, before, _ = next((one for one in lengths if one[2] is not None), lengths[0])
    hint = "" if before is None else f", or what it was started with: --set {key}={before}"
    raise ConfigError(
        f"{key}: makes a run of {counted(total_steps, 'step')}, and {folder.path} has made {done:,} already; give "
        f"more{hint}"
    )


def changes_length(changed: Sequence[Difference]) -> bool:
    """Returns whether the settings that changed can make a run longer."""
    return any(key in _LENGTHS for key, _, _ in changed)


def _may_change(key: str) -> bool:
    return key in _LENGTHS or key in _SCHEDULE or key.startswith(_ROOMS)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _same_batch(recipe: Recipe, started: Recipe) -> Recipe:
    """Returns the recipe with the started one's devices and batch size where both have equal batches of all devices."""
    ours, theirs = recipe.training, started.training
    if ours.batch_size * int(ours.devices) != theirs.batch_size * int(theirs.devices):
        return recipe
    same = {"batch_size": theirs.batch_size, "devices": theirs.devices}
    return recipe.model_copy(update={"training": ours.model_copy(update=same)})
