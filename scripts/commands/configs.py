"""`trfmoe configs ls | show | cp | check | reference`: recipes, and what may stand in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption, SetOption

if TYPE_CHECKING:
    from trfmoe_core.config import Recipe

configs = typer.Typer(
    help="Recipes: list those that come with the project, show, copy and check them, and explain every setting.",
    no_args_is_help=True,
)
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A file, or a name of configs ls.")]


@configs.command("ls")
def list_recipes(as_json: JsonOption = False) -> None:
    """Show the recipes that come with the project, and what each is for."""
    from dataclasses import asdict

    from scripts.run.recipes import bundled_recipes, read_facts
    from scripts.terminal.output import Output

    output = Output(as_json)
    found = {path: read_facts(path.read_text(encoding="utf-8")) for path in bundled_recipes()}
    for path, facts in found.items():
        output.line(path.stem, style="bold")
        output.line(f"    {facts.purpose}")
        for name, told in (("size", facts.size), ("memory", facts.memory), ("time", facts.time)):
            output.line(f"    {name:<8}{told}")
    output.line("trfmoe configs cp NAME my.yaml copies one to edit; trfmoe plan NAME says what it costs")
    rows = [{"name": path.stem, "path": str(path), **asdict(facts)} for path, facts in found.items()]
    output.result({"outcome": "listed", "recipes": rows, "exit_code": 0})


@configs.command()
def show(recipe: RecipeArgument, as_json: JsonOption = False) -> None:
    """Show a recipe's file, with its comments."""
    from scripts.run.preflight import find_recipe
    from scripts.terminal.output import Output
    from trfmoe_core.config import load_recipe

    output = Output(as_json)
    path = find_recipe(recipe)
    values = load_recipe(path).model_dump(mode="json")
    text = path.read_text(encoding="utf-8")
    output.line(text.rstrip())
    output.result({"outcome": "shown", "path": str(path), "text": text, "recipe": values, "exit_code": 0})


@configs.command()
def cp(
    recipe: RecipeArgument,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The new file, or the folder for it.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a recipe, comments included, to a file of your own."""
    from scripts.run.preflight import find_recipe
    from scripts.run.recipes import copy_recipe
    from scripts.terminal.output import Output
    from trfmoe_core.config import load_recipe

    output = Output(as_json)
    source = find_recipe(recipe)
    load_recipe(source)
    written = copy_recipe(source, target)
    output.line(f"{written}: edit it, then trfmoe configs check {written}")
    output.result({"outcome": "copied", "path": str(written), "exit_code": 0})


@configs.command()
def check(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Files, or names of configs ls.")],
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Find every wrong key and value of recipes, without reading any text."""
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError, TRFMoEError

    output = Output(as_json)
    problems, found = [], {}
    for given in recipes:
        try:
            found[str(given)] = _checked(given, overrides)
        except TRFMoEError as error:
            problems.append(str(error))
    for name, facts in found.items():
        output.line(f"{name}: ok, {facts['kind']}")
        for remark in facts["remarks"]:
            output.warning(f"{name}: {remark}")
    if problems:
        raise ConfigError("\n".join(problems))
    output.result({"outcome": "checked", "recipes": found, "exit_code": 0})


@configs.command()
def reference(
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page there instead of docs/configuration.md.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the schema there instead of configs/schema.json.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the reference of all settings anew, as a page and as a JSON schema for editors."""
    import json

    from scripts.run.recipes import SCHEMA
    from scripts.terminal.output import Output
    from trfmoe_core.config.reference import reference_page
    from trfmoe_core.config.schema import recipe_schema
    from trfmoe_core.places import APP_FOLDER

    output = Output(as_json)
    page, schema = page or APP_FOLDER / "docs" / "configuration.md", schema or SCHEMA
    page.write_text(reference_page(), encoding="utf-8")
    schema.write_text(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    output.line(f"written: {page} and {schema}")
    output.result({"outcome": "written", "page": str(page), "schema": str(schema), "exit_code": 0})


def _checked(given: Path, overrides: list[str]) -> dict[str, Any]:
    """Returns what a recipe is for, and what in it is probably not what was meant.

    Raises:
        TRFMoEError: it cannot be run; lists all reasons that show without reading text.
    """
    from clients.attacks.base import check_drill
    from scripts.run.preflight import find_recipe
    from strategies.parts import check_parts
    from trfmoe_core.config import check_federated, load_recipe
    from trfmoe_core.model.stock.exporting import export_remarks
    from trfmoe_core.model.transformer import parameter_shapes
    from trfmoe_core.training.optimizers.base import OPTIMIZERS

    recipe = load_recipe(find_recipe(given), overrides)
    for number, node in enumerate(recipe.nodes):
        check_drill(node, f"{given}: nodes.{number}.drill")
    if not recipe.data.sources:
        check_federated(recipe, str(given))
    check_parts(recipe)
    OPTIMIZERS.find(recipe.training.optimizer)
    parameter_shapes(recipe.model, recipe.model.vocab_size or 256)
    remarks = [*export_remarks(recipe.model), *_remarks(recipe)]
    kind = "for one machine" if recipe.data.sources else f"for a federation of {recipe.federation_size} nodes"
    return {"kind": kind, "remarks": remarks}


def _remarks(recipe: "Recipe") -> list[str]:
    from trfmoe_core.training.schedule import schedule_remarks

    if recipe.training.epochs is not None:
        return []
    local = recipe.training.budget(recipe.model.context) if recipe.data.sources else None
    return schedule_remarks(recipe.training, local or recipe.total_steps)
