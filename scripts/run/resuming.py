"""Going on with a run: which settings may change within it, and how the journal and the user are told."""

from collections.abc import Sequence
from pathlib import Path

from scripts.run.run_folders import Difference, as_started, differences, find_run, housed, refuse_differences
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Journal
from trfmoe_core.config import Recipe, recipe_hash
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.schedule import learning_rate

_LENGTHS = ("training.steps", "training.tokens", "training.epochs", "rounds.num_rounds")
_SCHEDULE = ("training.learning_rate", "training.min_learning_rate", "training.warmup_steps", "training.schedule")
_ROOMS = ("local.", "log.")


def resumed_run(
    recipe: Recipe, run_dir: Path | None, command: str = "simulate"
) -> tuple[RunFolder, Recipe, list[Difference]]:
    """Returns a federation's run, the recipe with which it goes on, and in what that differs from the one before.

    Args:
        recipe: As asked for now.
        run_dir: The run; None takes the latest of the recipe's name.
        command: The subcommand by which a user goes on with it, for messages.

    Raises:
        RunFolderError: no run folder, or another coordinator is writing it.
        ConfigError: it was started with another recipe, and not only to be longer or with another learning rate or
            log; or it was started as a run on one machine.
    """
    folder = find_run(recipe, run_dir, "federated")
    before = folder.recipe
    # Where new runs are made says nothing about this one, which may have moved, as with a backup.
    recipe = recipe.model_copy(update={"run_root": before.run_root})
    recipe = as_started(housed(recipe, folder.path), before)
    found = differences(before.model_dump(mode="json"), recipe.model_dump(mode="json"))
    # Fewer rounds are the recipe's own, and the run was started with more by --set: that is no wish to make it shorter.
    longer = recipe.rounds.num_rounds > before.rounds.num_rounds
    allowed = [one for one in found if may_change(one[0]) and (longer or one[0] not in _LENGTHS)]
    refuse_differences(folder, [one for one in found if one not in allowed], command)
    with folder.lock():
        return folder, recipe, allowed


def may_change(key: str) -> bool:
    """Returns whether a setting may change within a run."""
    return key in _LENGTHS or key in _SCHEDULE or key.startswith(_ROOMS)


def changes_length(changed: Sequence[Difference]) -> bool:
    """Returns whether the settings that changed can make a run longer."""
    return any(key in _LENGTHS for key, _, _ in changed)


def refuse_shorter(folder: RunFolder, changed: Sequence[Difference], total: int, unit: str) -> None:
    """Refuses to make a run shorter than it is.

    Args:
        folder: The run.
        changed: Settings that differ from those of its last start.
        total: The length that they give it, in `unit`s.
        unit: step or round.

    Raises:
        ConfigError: it has made as many already.
    """
    done = max(folder.facts().committed, default=0)
    lengths = [one for one in changed if one[0] in _LENGTHS]
    if not lengths or done < total:
        return
    key, before, _ = next((one for one in lengths if one[2] is not None), lengths[0])
    hint = "" if before is None else f", or what it was started with: --set {key}={before}"
    raise ConfigError(
        f"{key}: makes a run of {counted(total, unit)}, and {folder.path} has made {done:,} already; give more{hint}"
    )


def change_settings(
    folder: RunFolder, recipe: Recipe, changed: Sequence[Difference], total_steps: int | None = None
) -> str:
    """Writes changed settings into the run's recipe and journal; returns what changed as one sentence.

    Args:
        folder: The run.
        recipe: With the changed settings.
        changed: What they are.
        total_steps: The new length of a run on one machine, which counts in steps; None: a federation, in rounds.

    Raises:
        ConfigError: the run has made as many steps as that already.
        RunFolderError: somebody works on the run, or the journal cannot be written.
    """
    facts = folder.facts()
    done, planned = max(facts.committed, default=0), int(facts.started.get("num_rounds") or 0)
    if total_steps is None:
        rounds = recipe.rounds
        unit, node, total, length = "round", " a node", rounds.total_steps, rounds.num_rounds
        steps, before = rounds.steps_before(done + 1), folder.recipe.rounds.steps_before(planned + 1)
    else:
        unit, node, total, length, steps, before = "step", "", total_steps, total_steps, done, planned
    refuse_shorter(folder, changed, length, unit)
    rate = learning_rate(steps, total, recipe.training)
    old = learning_rate(max(0, steps - 1), before, folder.recipe.training) if before else rate
    text = (
        f"settings changed after {unit} {done}: "
        + ", ".join(f"{key} from {_shown(was)} to {_shown(now)}" for key, was, now in changed)
        + f"; the learning rate was {old:.3g} and goes on at {rate:.3g} by the {recipe.training.schedule} schedule "
        f"over {counted(total, 'step')}{node}{_rise(old, rate)}"
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


def _rise(old: float, rate: float) -> str:
    if rate <= 1.05 * old:
        return ""
    return ", so it rises again, and the loss can rise with it for a while; training.learning_rate sets a lower one"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
