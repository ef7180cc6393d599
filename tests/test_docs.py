"""The pages say what is true: their commands run, their links lead somewhere, the files that they name exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml

from scripts.main import app, main
from tests.conftest import TINY, words
from tests.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?m)(?:^|`)(trfmoe [^`\n]*)")
PATH = re.compile(r"(?<![\w/.-])(?:strategies|server|clients|scripts|trfmoe_core|tests|configs|docs)/[\w/.-]*\w")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDERS = {"RUN": "runs/demo-001", "RUN...": "runs/demo-001", "RECIPE": "tiny", "RECIPE.yaml": "tiny"} | {
    **{name: name for name in ("FOLDER", "DATA", "A", "B", "C")},
    "N": "4",
    "training.steps=N": "training.steps=4",
}
"""What a reader puts in the place of a word in capitals."""
REDUCED = {
    "train": ["--dry-run"],
    "simulate": ["--dry-run"],
    "generate": ["--max-tokens", "2"],
    "plan": [],
    "status": [],
    "report": [],
    "verify": [],
    "configs ls": [],
    "configs show": [],
    "configs cp": [],
    "configs check": [],
    "data inspect": [],
    "data prepare": [],
    "data tokenizer": [],
    "runs list": [],
    "runs show": [],
    "runs compare": [],
    "deploy init": [],
}
"""Commands that are run, each with the options that keep it short."""
PARSED = {
    "demo": "minutes; tests/scripts/commands/test_demo.py runs it",
    "drill": "minutes; tests/scripts/experiments runs it",
    "bench": "minutes; tests/scripts/bench runs its parts",
    "study": "minutes; tests/scripts/commands/test_study.py runs each at a small size",
    "deploy": "several machines; tests/test_kit_end_to_end.py and its neighbours run them",
    "node": "a node of a federation",
    "serve": "does not end by itself",
    "watch": "does not end by itself",
    "evaluate": "needs text of its own; tests/scripts/commands/test_evaluate.py runs it",
    "export": "tests/scripts/commands/test_export.py runs it",
    "import": "needs a model of Hugging Face; tests/scripts/commands runs it",
    "doctor": "looks at this machine; tests/scripts/commands/test_doctor.py runs it",
    "sign": "changes a run; tests/server/run_folder runs it",
    "runs clean": "deletes; tests/scripts/run runs it",
    "data sample": "a minute; tests/trfmoe_core/data/sample runs it",
    "configs reference": "writes into the project; tests/trfmoe_core/config/test_reference.py compares",
}


def shown() -> list[str]:
    """Returns every complete command of the pages; the name of a command alone is no command line."""
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    found = {text.strip() for page in pages for text in COMMAND.findall(page.read_text(encoding="utf-8"))}
    return sorted(
        text for text in found if kind_and_rest(text)[1] or kind_and_rest(text)[0] in ("runs list", "configs ls")
    )


def kind_and_rest(text: str) -> tuple[str, list[str]]:
    """Returns the subcommand and what follows it."""
    text = re.sub(r"\[[A-Z|]+\]", "", text).replace("\\", "")
    left = [PLACEHOLDERS.get(word, word) for word in shlex.split(text, comments=True)[1:]]
    if left[:2] == ["runs", "compare"]:
        left[2:] = ["runs/demo-001", "runs/three-nodes-001"]
    command: click.Command = typer.main.get_command(app)
    names = []
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        assert left[0] in command.commands, f"{text}: there is no such command"
        names.append(left.pop(0))
        command = command.commands[names[-1]]
    return " ".join(names), left


def policy(kind: str) -> str | None:
    return next((name for name in (kind, kind.split(" ")[0]) if name in PARSED), None)


SHOWN = shown()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages name: texts, a recipe, and runs."""
    stage = tmp_path_factory.mktemp("stage")
    owners = ["first", "second", "third", *(f"sample/{name}" for name in ("language", "network", "numbers"))]
    folders = [stage / "data" / owner for owner in owners]
    folders += [stage / name for name in ("FOLDER", "DATA", "A", "B", "C", "papers", "public-text", "pdfs")]
    for number, folder in enumerate(folders):
        for part in range(3):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{part}.txt").write_text(words(10 * number + part, 1500))
    for folder in (stage / "data" / "sample").iterdir():
        (folder / "pdfs").mkdir()
        (folder / "pdfs" / "a.txt").write_text(words(1, 800))
        pq.write_table(pa.table({"text": [words(2, 800)]}), folder / "shard.parquet")
    nodes = [{"name": f"n{number}", "data": [str(folders[number])]} for number in range(3)]
    rounds = {**TINY["rounds"], "num_rounds": 1, "local_steps": 2}  # type: ignore[dict-item]
    (stage / "r.yaml").write_text(yaml.safe_dump({**TINY, "name": "r", "nodes": nodes, "rounds": rounds}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRFMOE_CACHE", str(stage / "cache"))
        for name in ("demo-001", "three-nodes-001"):
            made = stage / name
            assert call("train", str(stage / "r.yaml"), "--set", f"run_root={made}") == 0
            (stage / "runs").mkdir(exist_ok=True)
            (made / "r-local-001").rename(stage / "runs" / name)
    return stage


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ending:
        main(list(arguments))
    return int(ending.value.code or 0)


def test_the_pages_show_commands() -> None:
    assert len(SHOWN) > 40


@pytest.mark.parametrize("text", SHOWN)
def test_a_shown_command_is_understood(text: str) -> None:
    kind, rest = kind_and_rest(text)
    assert policy(kind) or kind in REDUCED, f"{kind}: say in REDUCED how it is run, or in PARSED why not"
    try:
        parse(kind, rest)
    except click.exceptions.Exit:
        return  # such as that of --list, which is done at once
    except (click.MissingParameter, click.BadOptionUsage):
        # a command that is only mentioned, with an option that matters there; a line of its own has to be complete
        assert not any(re.search(rf"(?m)^{re.escape(text)}", page.read_text(encoding="utf-8")) for page in PAGES)


def parse(kind: str, rest: list[str]) -> None:
    command: click.Command = typer.main.get_command(app)
    for name in kind.split():
        assert isinstance(command, click.Group)
        command = command.commands[name]
    if "--help" not in rest:
        command.make_context(kind, list(rest))


def complete(kind: str, rest: list[str]) -> bool:
    try:
        parse(kind, rest)
    except click.UsageError:
        return False
    return True


def runnable() -> Iterator[str]:
    for text in SHOWN:
        kind, rest = kind_and_rest(text)
        needs = {"PUBLIC", "FILE", "single"} & {*rest, *(Path(word).stem for word in rest)}
        needs |= {"--devices", "--from"} & {*rest}
        needs |= {"--run-dir"} & {*rest} if kind == "simulate" else set()  # the stage's run is one of `train`
        if kind in REDUCED and not needs and complete(kind, rest):
            yield text


@pytest.mark.parametrize("text", list(runnable()))
def test_a_shown_command_runs(
    text: str, stage: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stage)
    monkeypatch.setenv("HOME", str(stage))
    monkeypatch.setenv("TRFMOE_CACHE", str(stage / "cache"))
    kind, rest = kind_and_rest(text)
    rest = [word.replace("~", str(stage)) for word in rest]
    assert call(*kind.split(), *rest, *REDUCED[kind]) == 0, capfd.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    found = set(PATH.findall(page.read_text(encoding="utf-8")))
    if page.name not in ("CHANGELOG.md", "extending.md"):  # one tells of what has gone, one of what is to be made
        assert not [path for path in found if not (ROOT / path).exists()]


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
