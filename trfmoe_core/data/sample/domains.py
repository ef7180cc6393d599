"""Makes text of three other domains than the sample's, from what every installation of this project carries.

The owners bring law (the licences of installed packages), mathematics (numpy's manual) and code (Python's library
without its documentation). Of each domain some text is public, for a witness, and some is held out from everybody.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from trfmoe_core.data.sample.book import write_book
from trfmoe_core.data.sample.made_folder import made_folder
from trfmoe_core.data.sample.owners import up_to, without_repeats
from trfmoe_core.data.sample.stdlib_text import Manual, Section, library_folder, module_manuals
from trfmoe_core.errors import DataError

# Increase it whenever the same installation gives other text.
_FORMAT = 1
DOMAINS = ("law", "mathematics", "code")
HELD_OUT, PUBLIC = "held-out", "public"
_LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE)", re.IGNORECASE)
_NUMPY = ["lib", "linalg", "polynomial", "fft", "ma", "random", "matlib"]
# fmt: off
_CODE = [
    "argparse", "ast", "asyncio", "bdb", "calendar", "cgitb", "cmd", "code", "codeop", "configparser", "csv",
    "dataclasses", "datetime", "difflib", "email", "enum", "fractions", "functools", "heapq", "http", "imaplib",
    "inspect", "json", "logging", "mailbox", "pickle", "pathlib", "random", "shutil", "statistics", "subprocess",
    "tarfile", "threading", "tokenize", "typing", "unittest", "urllib", "uuid", "xml", "zipfile",
]
# fmt: on
_EVERY = 8
_BOOKS = 3


@dataclass(frozen=True)
class DomainSize:
    """Characters of each part of a domain, at most."""

    owner: int = 180_000
    held_out: int = 16_000
    public: int = 16_000


def build_domains(root: Path, size: DomainSize = DomainSize()) -> Path:
    """Returns the absolute path of a folder with the text of three owners.

    It holds a folder for each domain, `held-out/DOMAIN.txt` and `public/DOMAIN.txt`; no paragraph is in two places.
    The same packages give the same files.

    Raises:
        DataError: `root` has other files or cannot be written, or this installation has too little text.
    """

    def fill(folder: Path) -> None:
        for name in (HELD_OUT, PUBLIC, *DOMAINS):
            (folder / name).mkdir()
        for domain, sections in (("law", _law()), ("mathematics", _mathematics()), ("code", _code())):
            _write(folder, domain, sections, size)

    installed = sorted(f"{one.metadata['Name']} {one.version}" for one in metadata.distributions())
    digest = hashlib.sha256("\n".join(installed).encode()).hexdigest()
    identity = {"domains": _FORMAT, "installed": digest, "size": [size.owner, size.held_out, size.public]}
    return made_folder(root, identity, fill)


def _write(folder: Path, domain: str, sections: Iterator[tuple[str, Section]], size: DomainSize) -> None:
    """Deals out sections: of every eight, one is held out, one is public, and six are the owner's."""
    parts: list[list[tuple[str, Section]]] = [[], [], []]
    for number, one in enumerate(sections):
        parts[{0: 0, _EVERY // 2: 1}.get(number % _EVERY, 2)].append(one)
    held_out, public, own = (
        up_to(iter(part), limit) for part, limit in zip(parts, (size.held_out, size.public, size.owner), strict=True)
    )
    if sum(len(manual.text) for manual in held_out) < size.held_out // 4:
        raise DataError(f"sample {folder}: this installation has too little text for {domain}; use a complete Python")
    for name, manuals in ((HELD_OUT, held_out), (PUBLIC, public)):
        text = "\n\n".join(manual.text for manual in manuals)
        (folder / name / f"{domain}.txt").write_text(text + "\n", encoding="utf-8")
    if domain == "code":
        rows = [json.dumps({"text": section.text}) for manual in own for section in manual.sections]
        (folder / domain / "modules.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return
    for number in range(_BOOKS):
        volume = own[number::_BOOKS]
        if volume:
            title = f"{domain.capitalize()}, volume {number + 1}"
            write_book(folder / domain / f"volume-{number + 1}.pdf", title, volume, "The authors of the packages")


def _law() -> Iterator[tuple[str, Section]]:
    """Yields the licences of installed packages, without paragraphs that came before, in parts of a page or two."""
    found: dict[str, str] = {}
    for package in metadata.distributions():
        for file in package.files or ():
            path = Path(str(package.locate_file(file)))
            if _LICENCE.search(path.name) and path.suffix.lower() in ("", ".txt", ".md", ".apache", ".bsd", ".mit"):
                try:
                    found[f"{package.metadata['Name']} {file}"] = path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError):
                    continue
    manuals = (
        Manual(name.split()[0], (Section(f"Licences of {name.split()[0]}", found[name]),)) for name in sorted(found)
    )
    return _short(without_repeats(manuals, set()))


def _mathematics() -> Iterator[tuple[str, Section]]:
    """Yields numpy's documentation of numerical methods, out of its sources."""
    spec = find_spec("numpy")
    if spec is None or spec.origin is None:
        raise DataError("sample: numpy is not installed here as files; use a complete installation")
    return _short(without_repeats(module_manuals(_NUMPY, Path(spec.origin).parent), set()))


def _code() -> Iterator[tuple[str, Section]]:
    """Yields the classes and functions of Python's library, without docstrings and comments."""
    root = library_folder()
    for name in _CODE:
        path = root / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            try:
                tree = ast.parse(source.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and "test" not in node.name.lower():
                    text = ast.unparse(_undocumented(node))
                    if 200 <= len(text) <= 6000:
                        yield source.stem, Section(node.name, text)


def _undocumented(node: ast.AST) -> ast.AST:
    for one in ast.walk(node):
        if (
            isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(one) is not None
        ):
            one.body = one.body[1:] or [ast.Pass()]
    return node


def _short(sections: Iterator[tuple[str, Section]], characters: int = 2000) -> Iterator[tuple[str, Section]]:
    """Yields sections cut between paragraphs, so that every domain has many."""
    for name, section in sections:
        blocks: list[str] = []
        for block in [*section.text.split("\n\n"), ""]:
            if blocks and (not block or sum(map(len, blocks)) + len(block) > characters):
                yield name, Section(section.heading, "\n\n".join(blocks))
                blocks = []
            blocks += [block] if block else []
