"""The examples of docs/extending.md are complete: written where they say they belong, they work."""

import re
from pathlib import Path

from tests.fresh import failures
from tests.places import ROOT

MOST_LINES = 40
BLOCK = re.compile(r"^```python\n(?:# (?P<path>\S+\.py)\n)?(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
# Extends our packages by the folder with the examples, then calls the tests of the blocks that belong to tests/.
PROGRAM = """
import importlib, inspect, linecache, pathlib, tempfile
for package, folder in {packages!r}:
    importlib.import_module(package).__path__.append(folder)
for name, code in {tests!r}:
    names = {{"__name__": name}}
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    exec(compile(code, name, "exec"), names)
    tests = [one for key, one in names.items() if key.startswith("test_")]
    assert tests or "assert" in code, name + " tests nothing"
    for test in tests:
        with tempfile.TemporaryDirectory() as folder:
            test(*[pathlib.Path(folder) for _ in inspect.signature(test).parameters])
"""


def sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """Heading -> (path, code) of its blocks; blocks without a path are run as they are."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    found = {heading: BLOCK.findall(body) for heading, body in zip(parts[::2], parts[1::2], strict=True)}
    return {heading: blocks for heading, blocks in found.items() if blocks}


def program(blocks: list[tuple[str, str]], folder: Path) -> str:
    """Writes the blocks that are parts below `folder`, and returns a program that runs the others."""
    packages = []
    for path, code in blocks:
        if path and not path.startswith("tests/"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(code)
            packages.append((path.rpartition("/")[0].replace("/", "."), str((folder / path).parent)))
    tests = [(path or "example", code) for path, code in blocks if not path or path.startswith("tests/")]
    assert tests, "an example without a test"
    return PROGRAM.format(packages=packages, tests=tests)


WRONG = {
    "wrong-value": ("def test_it():\n    assert 1 == 2", "assert 1 == 2"),
    "wrong-folder": ("def test_it(tmp_path):\n    assert list(tmp_path.iterdir())", "assert list(tmp_path.iterdir())"),
    "wrong-import": ("from trfmoe_core.config import Nothing", "cannot import name 'Nothing'"),
    "no-test": ("pass", "no-test.py tests nothing"),
}


def test_every_example_works_as_it_stands(tmp_path: Path) -> None:
    examples = sections((ROOT / "docs" / "extending.md").read_text())
    programs = {}
    for number, (heading, blocks) in enumerate(examples.items()):
        for path, code in blocks:
            assert not (path and (ROOT / path).is_file()), f"{heading}: {path} exists"
            assert len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES, f"{heading}: {path} is long"
        programs[f"example-{number}"] = program(blocks, tmp_path / str(number))
    # That these fail shows that the others could.
    programs |= {name: program([(f"tests/{name}.py", code)], tmp_path) for name, (code, _) in WRONG.items()}
    failed, errors = failures(programs, ROOT)
    assert failed == list(WRONG), errors
    assert len(programs) > len(WRONG)
    for _, message in WRONG.values():
        assert message in errors
