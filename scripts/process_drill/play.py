"""`trfmoe drill --processes`: scenarios harm one of a deployment's processes, and the run must go on."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.process_drill.scenarios import SCENARIOS
from scripts.process_drill.scene import Played, Scenario, play
from scripts.run.preflight import prepare_nodes
from scripts.terminal.output import Output
from trfmoe_core.config import Recipe, load_recipe
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError, TRFMoEError

SETTINGS = ("rounds.num_rounds=4", "rounds.wait=quorum", "rounds.local_steps=60", "rounds.reply_deadline_s=300")
QUICK = ("node killed during training", "server app killed")


def run_process_drill(config: Path, overrides: list[str], names: Sequence[str], quick: bool, output: Output) -> int:
    """Plays scenarios one after the other and writes what came of each; returns the exit code.

    Args:
        config: The recipe.
        overrides: Settings as `a.b=c`; they come after those of the scenarios.
        names: Scenarios; all when empty, or two when `quick`.
        quick: See `names`.
        output: Where to write.

    Raises:
        ConfigError: no such scenario.
    """
    chosen = choose(names or (QUICK if quick else ()))
    results: list[dict[str, Any]] = []
    for number, scenario in enumerate(chosen, 1):
        output.line(f"[{number}/{len(chosen)}] {scenario.name}")
        settings = [*SETTINGS, *scenario.settings, *overrides]
        recipe = load_recipe(config, settings).resolved(Path.cwd())
        prepare_nodes(recipe, Output(as_json=True))  # so that no scenario waits for data
        with tempfile.TemporaryDirectory(prefix="trfmoe-processes-", ignore_cleanup_errors=True) as root:
            results.append(_play_one(scenario, recipe.model_copy(update={"run_root": root}), output))
    well = all(result["ok"] for result in results)
    ran = [result for result in results if not result.get("skipped")]
    output.line(
        f"{sum(result['ok'] for result in ran)} of {counted(len(ran), 'scenario')} well, "
        f"{len(results) - len(ran)} skipped"
    )
    code = 0 if well else 1
    output.result({"outcome": "completed" if well else "failed", "scenarios": results, "exit_code": code})
    return code


def choose(names: Sequence[str]) -> list[Scenario]:
    """Returns the scenarios of these names, or all.

    Raises:
        ConfigError: no such scenario.
    """
    known = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"--attacks: {unknown[0]!r} is none of {', '.join(known)}")
    return [known[name] for name in names] if names else list(SCENARIOS)


def _play_one(scenario: Scenario, recipe: Recipe, output: Output) -> dict[str, Any]:
    try:
        played = play(scenario, recipe, output.line)
    except ConfigError as error:
        output.line(f"  skipped: {error}")
        return {"name": scenario.name, "ok": True, "skipped": str(error)}
    except TRFMoEError as error:
        output.line(f"  FAILED: {error}", style="bold red")
        return {"name": scenario.name, "ok": False, "error": str(error)}
    _show(played, output)
    checks = [{"check": text, "ok": kept} for text, kept in played.checks]
    told = {"checks": checks, "seconds": played.seconds, **played.numbers}
    return {"name": scenario.name, "ok": played.well, **told}


def _show(played: Played, output: Output) -> None:
    for text, kept in played.checks:
        output.line(f"  {'ok    ' if kept else 'FAILED'} {text}", style=None if kept else "bold red")
    numbers = ", ".join(
        f"{name.removesuffix('_s')} {value:.1f} s" if name.endswith("_s") else f"{name.replace('_', ' ')} {value:g}"
        for name, value in played.numbers.items()
    )
    output.line(f"  {numbers}; {played.seconds:.0f} s in all")
