"""Hands a folder of a stock model to EleutherAI's lm-evaluation-harness, which is an optional package (`lm_eval`)."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trfmoe_core.errors import ConfigError, MachineError, RunError

Scores = dict[str, dict[str, float]]
"""Task -> metric, such as `acc,none` -> value."""


def stay_offline() -> None:
    """Keeps the Hugging Face libraries of this process off the network; call it before they are imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    for name, flags in {
        "huggingface_hub.constants": ["HF_HUB_OFFLINE"],
        "datasets.config": ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"],
    }.items():
        for flag in flags:
            if name in sys.modules and hasattr(sys.modules[name], flag):
                setattr(sys.modules[name], flag, True)


def check_harness() -> None:
    """Makes sure that the harness is installed.

    Raises:
        MachineError: It is not.
    """
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError as error:
        raise MachineError(
            f"--tasks: the package {error.name} is not installed; install it with: pip install 'lm_eval[hf]'"
        ) from error


def task_scores(
    folder: Path, names: Sequence[str], tasks_folder: Path | None, device: str, limit: int | None
) -> Scores:
    """Returns the scores that the harness gives a model on tasks.

    Args:
        folder: A folder that transformers opens.
        names: Tasks: those that the harness brings along, or those of `tasks_folder`.
        tasks_folder: YAML files of other tasks. They may name Python functions, which then run here.
        device: Where to compute, such as `cpu` or `cuda:0`.
        limit: The most examples of a task; None: all.

    Raises:
        MachineError: The harness is not installed.
        ConfigError: There is no such task or folder.
        RunError: The harness gave up, for instance because a task's examples are not on this machine.
    """
    check_harness()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    if tasks_folder is not None and not tasks_folder.is_dir():
        raise ConfigError(f"--tasks-folder {tasks_folder}: no such folder; give the one that holds the tasks' YAML")
    manager = TaskManager(include_path=str(tasks_folder.absolute()) if tasks_folder else None)
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise ConfigError(
            f"--tasks {unknown[0]}: lm_eval knows no such task; `lm_eval ls tasks` lists them, and --tasks-folder DIR "
            "adds your own"
        )
    try:
        found = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder.absolute()), "dtype": "float32", "trust_remote_code": False},
            tasks=list(names),
            task_manager=manager,
            device=device,
            limit=limit,
            log_samples=False,
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"--tasks {','.join(names)}: lm_eval gave up ({reason}); examples that are not on this machine are "
            "downloaded only with --online"
        ) from error
    return {
        name: {metric: float(value) for metric, value in scores.items() if isinstance(value, int | float)}
        for name, scores in found["results"].items()
    }
