"""`trfmoe drill --processes`: one of a deployment's processes is hurt, and the run must go on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.drill.process_faults import SCENARIOS
from scripts.drill.process_scene import Played, Scenario, play, prepared, temporary_runs
from scripts.output import Output
from trfmoe_core.config import Recipe, load_recipe
from trfmoe_core.errors import ConfigError, TRFMoEError

SETTINGS = ("rounds.num_rounds=4", "rounds.wait=quorum", "rounds.local_steps=60", "rounds.reply_deadline_s=300")
QUICK = ("node killed during training", "server app killed")


def run_process_drill(config: Path, overrides: list[str], names: Sequence[str], quick: bool, output: Output) -> int:
    """Plays scenarios one after the other and writes what came of each; returns the exit code.

    Raises:
        ConfigError: no such scenario.
    """
    chosen = choose(names or (QUICK if quick else ()))
    results: list[dict[str, Any]] = []
    for number, scenario in enumerate(chosen, 1):
        output.line(f"[{number}/{len(chosen)}] {scenario.name}")
        settings = [*SETTINGS, *scenario.settings, *overrides]
        recipe = prepared(load_recipe(config, settings).resolved(Path.cwd()))
        with temporary_runs(recipe) as housed:
            results.append(_one(scenario, housed, output))
    well = all(result["ok"] for result in results)
    ran = [result for result in results if not result.get("skipped")]
    output.line(
        f"{sum(result['ok'] for result in ran)} of {len(ran)} scenarios well, {len(results) - len(ran)} skipped"
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


def _one(scenario: Scenario, recipe: Recipe, output: Output) -> dict[str, Any]:
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
