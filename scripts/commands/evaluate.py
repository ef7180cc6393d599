"""`trfmoe evaluate`: what a model makes of text that it was not trained on, and of tasks."""

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.commands.generate import LastOption, RoundOption
from scripts.terminal.options import JsonOption

if TYPE_CHECKING:
    import torch

    from scripts.evaluation.models import ScoredModel
    from scripts.evaluation.tasks import Scores
    from scripts.evaluation.texts import ScoredTexts
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from trfmoe_core.training.text_loss import TextLoss

LONGEST_CONTEXT = 2048
"""Tokens of a window, at most, unless `--context` says otherwise."""


def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|FOLDER]",
            help="A run or its name, an export, or any folder that transformers opens; without one, the latest run.",
        ),
    ] = None,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="DATA", help="A file or folder to score; again for more. Of a run: what its nodes hold out."
        ),
    ] = [],  # noqa: B006
    baseline: Annotated[
        Path | None,
        typer.Option(help="Another model to compare with. Of a run that was imported: the imported model."),
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a window; without it, the most that the models take, to 2,048.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Tasks of lm_eval, separated by commas, instead of text.")
    ] = None,
    tasks_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your own tasks' YAML files. Python that they name is run.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples of a task, at most.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Let lm_eval download the examples of tasks.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    number: RoundOption = None,
    last: LastOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score a model on text: bits per byte and perplexity, beside those of the model it began as.

    Give text that nobody trained on. Every byte counts: a text is read in overlapping windows, and each token is
    predicted once, from at least half a window before it. Bits per byte can be compared between tokenizers, perplexity
    cannot.
    """
    from scripts.evaluation.models import is_stock
    from scripts.evaluation.tasks import check_harness, stay_offline
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.run_folder.models import choose_round
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.training.device import resolve_device

    output = Output(as_json)
    if tasks:
        if not online:
            stay_offline()
        check_harness()
    elif tasks_folder or limit or online:
        raise ConfigError("--tasks-folder, --limit and --online are of --tasks; name the tasks too")
    folder = None if is_stock(model) else run_folder(model)
    if folder is None and (number is not None or last):
        raise ConfigError(f"{model}: is one model; --round and --last choose among those of a run")
    if folder is None and not data and not tasks:
        raise ConfigError(f"{model}: is no run, so nothing says what to score it on; give --data FILE_OR_FOLDER")
    chosen = choose_round(folder, number, last) if folder else 0
    where = resolve_device(device)
    result: dict[str, Any] = {"outcome": "completed", "model": str(folder.path if folder else model), "round": chosen}
    if data or not tasks:
        result |= _score_text(model, folder, chosen, data, baseline, context, where, output)
    if tasks:
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        result["tasks"] = _score_tasks(model, folder, chosen, names, tasks_folder, str(where), limit)
        for name, scores in result["tasks"].items():
            output.line(f"{name}: {', '.join(f'{metric} {value:.4f}' for metric, value in scores.items())}")
    output.result({**result, "exit_code": 0})


def _score_text(
    model: Path | None,
    folder: "RunFolder | None",
    chosen: int,
    data: list[str],
    baseline: Path | None,
    context: int | None,
    device: "torch.device",
    output: "Output",
) -> dict[str, Any]:
    """Scores models on texts, shows the table, and returns it for programs."""
    from scripts.evaluation.models import run_model, stock_model
    from scripts.evaluation.texts import held_out_texts, texts_of_files, trained_on
    from trfmoe_core.config import DataConfig
    from trfmoe_core.errors import ConfigError

    models: list[ScoredModel] = []
    if folder:
        models.append(run_model(folder, chosen, device))
        for entry in data:
            if nodes := trained_on(entry, folder):
                output.warning(f"{entry}: {', '.join(nodes)} trained on most of it, so this is no held-out loss")
    elif model is not None:
        models.append(stock_model(model, device))
    if baseline is not None:
        models.append(stock_model(baseline, device))
    elif folder and folder.imported_path.exists() and chosen:
        models.append(run_model(folder, 0, device))
    for one in models:
        if one.tokenizer.remark:
            output.warning(f"tokenizer of {one.name}: {one.tokenizer.remark}")
    largest = min(one.context or LONGEST_CONTEXT for one in models)
    if context is not None and any(one.context and context > one.context for one in models):
        raise ConfigError(f"--context {context}: the models take {largest} tokens at most; give no more")
    length = context or min(largest, LONGEST_CONTEXT)
    config = folder.recipe.data if folder else DataConfig()
    if data:
        texts = [texts_of_files(entry, config, output) for entry in data]
    elif folder:
        texts = held_out_texts(folder, output)
    _announce(models, texts, length, output)
    rows = []
    for some in texts:
        begun = time.monotonic()
        rows.append([_loss(one, some, length, device) for one in models])
        if len(texts) > 1:
            took = time.monotonic() - begun
            output.line(f"{some.name}: {rows[-1][0].bits_per_byte:.4f} bits/byte, took {took:.1f} s")
    if len(texts) > 1:
        rows.append([sum(column[1:], start=column[0]) for column in zip(*rows, strict=True)])
    labels = [some.name for some in texts] + ["all"] * (len(texts) > 1)
    _show(labels, rows, output)
    return {
        "context": length,
        "stride": max(1, length // 2),
        "baseline": models[1].name if len(models) > 1 else None,
        "texts": [_payload(label, row) for label, row in zip(labels, rows, strict=True)],
    }


def _loss(model: "ScoredModel", some: "ScoredTexts", length: int, device: "torch.device") -> "TextLoss":
    from trfmoe_core.training.text_loss import text_loss

    return text_loss(model.logits, model.tokenizer, some.texts, length, device=device)


def _payload(label: str, row: list["TextLoss"]) -> dict[str, Any]:
    scores = [
        {"bits_per_byte": one.bits_per_byte, "perplexity": one.perplexity, "tokens": one.tokens, "bytes": one.num_bytes}
        for one in row
    ]
    more = {"baseline": scores[1], "ratio": ratio(row)} if len(row) > 1 else {}
    return {"text": label, **scores[0], **more}


def ratio(row: list["TextLoss"]) -> float:
    """Returns the bits per byte of the first model as a share of the second's; below 1 the first is better."""
    before = row[1].bits_per_byte
    return row[0].bits_per_byte / before if before else math.nan


def _announce(models: list["ScoredModel"], texts: list["ScoredTexts"], length: int, output: "Output") -> None:
    """Says before the long work what is scored, on how much."""
    beside = f", beside {models[1].name}" if len(models) > 1 else ""
    tokens = sum(len(models[0].tokenizer.encode(text)) for some in texts for text in some.texts)
    on = texts[0].name if len(texts) == 1 else f"{len(texts)} texts"
    output.line(f"scoring {models[0].name}{beside} on {on}: {tokens:,} tokens in windows of {length}")


def _show(labels: list[str], rows: list[list["TextLoss"]], output: "Output") -> None:
    from rich.table import Table

    from scripts.terminal.output import one_line

    two = len(rows[0]) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("text", overflow="fold")
    for title in ["bytes", "bits/byte", "perplexity", *(["before", "ratio"] if two else [])]:
        table.add_column(title, justify="right")
    for label, row in zip(labels, rows, strict=True):
        cells = [f"{row[0].num_bytes:,}", f"{row[0].bits_per_byte:.4f}", f"{row[0].perplexity:.4g}"]
        if two:
            cells += [f"{row[1].bits_per_byte:.4f}", f"{ratio(row):.4f}"]
        table.add_row(one_line(label), *cells)
    output.view(table)


def _score_tasks(
    model: Path | None,
    folder: "RunFolder | None",
    chosen: int,
    names: list[str],
    tasks_folder: Path | None,
    device: str,
    limit: int | None,
) -> "Scores":
    """Returns the harness's scores; a run's model is exported into a temporary folder for it."""
    from scripts.evaluation.tasks import task_scores
    from scripts.run.models.exporting import export_round

    if folder is None:
        assert model is not None
        return task_scores(model, names, tasks_folder, device, limit)
    with tempfile.TemporaryDirectory(prefix="trfmoe-") as temporary:
        out = Path(temporary) / "model"
        export_round(folder, chosen, out)
        return task_scores(out, names, tasks_folder, device, limit)
