"""`trfmoe demo`: sample data, a federation with a lying node, a generated text, and a check of each promise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scripts.terminal.options import JsonOption, SetOption
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from server.run_folder.history import RunHistory
    from trfmoe_core.config import Recipe

SAMPLE = Path("data/sample")
PROMPT = "The "
Check = tuple[str, bool, str]


def demo(
    which: Annotated[
        Literal["lie", "continue"],
        typer.Argument(help="lie: a model from nothing; continue: a finished model learns the domains of its owners."),
    ] = "lie",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Show the whole product on sample data: three nodes, one of which lies, and what the vote makes of it.

    `trfmoe demo continue` trains a small dense model, lets three owners of other text go on with it together, and
    compares with each of them alone and with one machine that has all text. Its settings are those of
    configs/continue.yaml, and those of configs/dense.yaml under `--set dense.KEY=VALUE`.
    """
    if which == "continue":
        from scripts.commands.demo_continue import demo_continue

        demo_continue(overrides, as_json)
    from scripts.run.federated_run import resolve, run_federation
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from trfmoe_core.data.sample.owners import build_sample

    output = Output(as_json)
    recipe = resolve(Path("configs/demo.yaml"), overrides, [])
    output.line(f"sample data of three owners in {SAMPLE.absolute()}")
    build_sample(SAMPLE.absolute())
    outcome = run_federation(recipe, output)
    folder = RunFolder.open(outcome.run_dir)
    text = _sample(folder) if outcome.history.committed else ""
    if text:
        output.line(f"\ntext of the trained model (round {outcome.history.best_round}):")
        output.line(PROMPT + text)
        _keep_sample(folder, text)
    output.line()
    checks = [("the run completed", outcome.completed, outcome.reason), *judge_demo(recipe, outcome.history, text)]
    code = show_checks(checks, output)
    output.result({**outcome.payload(), "checks": told(checks), "text": PROMPT + text, "exit_code": code})
    raise typer.Exit(code)


def show_checks(checks: list[Check], output: "Output") -> int:
    """Writes one line for every promise, and returns the exit code: 0 if all were kept."""
    for promise, kept, detail in checks:
        mark, style = ("ok    ", None) if kept else ("FAILED", "bold red")
        output.line(f"{mark} {promise}{': ' if detail else ''}{detail}", style=style)
    return 0 if all(kept for _, kept, _ in checks) else 1


def told(checks: list[Check]) -> list[dict[str, Any]]:
    """Returns the promises for programs."""
    return [{"check": promise, "ok": kept, "detail": detail} for promise, kept, detail in checks]


def judge_demo(recipe: "Recipe", history: "RunHistory", text: str) -> list[Check]:
    """Returns the demo's promises about the lie, the loss and the text: what, whether it was kept, and the numbers."""
    drill_rounds = {number for rounds in history.drill_rounds().values() for number in rounds}
    return [
        *liar_checks(recipe, history),
        _kept_falling(history, min(drill_rounds, default=1)),
        *_below_bigram(history),
        _check_of_text(text),
    ]


def liar_checks(recipe: "Recipe", history: "RunHistory") -> list[Check]:
    """Returns the promises about the lie: who lied was outvoted, and nobody else was."""
    liars = {node.name for node in recipe.nodes if node.drill is not None}
    lied = history.drill_rounds()
    named = history.outvoted_rounds()
    checks: list[Check] = []
    for name in sorted(liars):
        missed = sorted(set(lied.get(name, [])) - set(named.get(name, [])))
        detail = f"lied in rounds {_rounds(lied.get(name, []))}, outvoted in rounds {_rounds(named.get(name, []))}"
        checks.append((f"{name}, told to lie, was outvoted in every round in which it lied", not missed, detail))
        if not lied.get(name):
            checks[-1] = (checks[-1][0], False, "it never lied")
    drill_rounds = {number for rounds in lied.values() for number in rounds}
    honest = {name: rounds for name, rounds in named.items() if name not in liars and drill_rounds & set(rounds)}
    checks.append(("no honest node was outvoted in those rounds", not honest, str(honest) if honest else ""))
    return checks


def _kept_falling(history: "RunHistory", first_lie: int) -> Check:
    bits = history.bits_per_byte
    before = bits[first_lie - 1] if 0 < first_lie <= len(bits) else None
    last = bits[-1] if bits else None
    kept = before is not None and last is not None and len(bits) > first_lie and last < before
    detail = (
        f"{before:.4f} before, {last:.4f} at the end" if before is not None and last is not None else "not measured"
    )
    return ("held-out bits per byte kept falling in spite of the lie", kept, detail)


def _below_bigram(history: "RunHistory") -> list[Check]:
    nodes = history.evaluated[max(history.evaluated)].get("nodes", {}) if history.evaluated else {}
    checks = []
    for name, joined in sorted(history.nodes.items()):
        bits = nodes.get(name, {}).get("bits_per_byte")
        bigram = joined.get("bigram_bits_per_byte")
        promise = f"{name}: better than a bigram model of its own text on its own held-out text"
        if bits is None or bigram is None:
            checks.append((promise, False, "not measured"))
        else:
            checks.append((promise, bits < bigram, f"{bits:.4f} bits/byte, bigram {bigram:.4f}"))
    return checks or [("the nodes were measured", False, "no node joined")]


def _check_of_text(text: str) -> Check:
    return ("the trained model generated a text", bool(text.strip()), f"{counted(len(text), 'character')}")


def _sample(folder: "RunFolder") -> str:
    from scripts.commands.generate import draw_text
    from server.run_folder.models import choose_round, load_model

    model, tokenizer = load_model(folder, choose_round(folder))
    return "".join(draw_text(model, tokenizer, PROMPT, 300, 0.7, 0.95, 0))


def _keep_sample(folder: "RunFolder", text: str) -> None:
    from server.report.page import write_report
    from server.run_folder.journal import Journal

    with folder.lock():
        Journal(folder.events_path).append("sample", prompt=PROMPT, text=text)
    write_report(folder.path)


def _rounds(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
