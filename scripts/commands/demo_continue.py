"""`trfmoe demo continue`: a finished dense model, continued by three owners, one of whom lies for a while."""

from pathlib import Path
from typing import Any, NoReturn

import typer

from scripts.commands.demo import SAMPLE, Check, liar_checks, show_checks, told

OWNERS_TEXT = Path("data/continue")
PROMPT = "Redistribution and use"
TOKENS = 120
DENSE_KEYS = "dense."


def demo_continue(overrides: list[str], as_json: bool) -> NoReturn:
    """Makes data and models, shows what each needs on held-out text, opens the export, and checks every promise.

    Args:
        overrides: Of configs/continue.yaml; keys that begin with `dense.` are of configs/dense.yaml.
        as_json: Print the result for programs.

    Raises:
        typer.Exit: 0 if all promises were kept, else 1.
    """
    from scripts.continuing.judged import judge, over_central, score, show
    from scripts.continuing.trained import TOGETHER, train_all
    from scripts.run.federated_run import resolve
    from scripts.run.models.exporting import export_round
    from scripts.terminal.output import Output
    from server.run_folder.models import choose_round
    from trfmoe_core.data.sample.domains import HELD_OUT, build_domains
    from trfmoe_core.data.sample.owners import build_sample

    output = Output(as_json)
    of_dense = [one.removeprefix(DENSE_KEYS) for one in overrides if one.startswith(DENSE_KEYS)]
    recipe = resolve(Path("configs/continue.yaml"), [one for one in overrides if not one.startswith(DENSE_KEYS)], [])
    dense = resolve(Path("configs/dense.yaml"), of_dense, [])
    output.line(f"general text in {SAMPLE.absolute()}, text of three owners in {OWNERS_TEXT.absolute()}")
    build_sample(SAMPLE.absolute())
    domains = build_domains(OWNERS_TEXT.absolute())
    found = train_all(dense, recipe, output)
    together = found.runs[TOGETHER]
    output.line("\n4. text that nobody trained on")
    scores = score(found, domains / HELD_OUT, output)
    show(scores, output)
    out = together.path / "export" / "model"
    difference = export_round(together, choose_round(together, last=True), out)
    text = sentence(out)
    output.line(f"\ntext of {out}, opened with transformers:\n{PROMPT}{text}\n")
    checks: list[Check] = [
        ("the run completed", found.together.completed, found.together.reason),
        *liar_checks(recipe, found.together.history),
        *judge(scores),
        ("transformers opens the export and gives the same logits", difference is not None, f"{difference:.1e}"),
        ("it writes a text", bool(text.strip()), f"{len(text)} characters"),
    ]
    code = show_checks(checks, output)
    runs = {name: str(run.path) for name, run in found.runs.items()}
    payload = {**found.together.payload(), "checks": told(checks), "runs": runs, "scores": scores.bits}
    payload["over_central"] = over_central(scores)
    output.result({**payload, "export": str(out), "text": PROMPT + text, "exit_code": code})
    raise typer.Exit(code)


def sentence(folder: Path) -> str:
    """Returns how transformers goes on with the prompt, with the most probable token each time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    prompt = tokenizer(PROMPT, return_tensors="pt")
    length = min(TOKENS, model.config.max_position_embeddings - prompt["input_ids"].shape[1])
    found = model.generate(**prompt, max_new_tokens=length, do_sample=False)
    return str(tokenizer.decode(found[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
