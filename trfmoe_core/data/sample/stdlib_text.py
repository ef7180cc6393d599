"""Docstrings and long comments of Python's standard library, read from its sources without importing them."""

import ast
import io
import re
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trfmoe_core.errors import DataError

# Shorter docstrings ("Return self.") and comments are not prose.
_MINIMUM_CHARACTERS = 60
_MINIMUM_COMMENT_LINES = 3
_LANGUAGE_REFERENCE = "pydoc_data/topics.py"
_UNDERLINED = re.compile(r"\n(\S.*)\n(?:\*{3,}|={3,}|-{3,}|~{3,})(?=\n)")
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Section:
    """A text under a heading; blank lines separate its paragraphs."""

    heading: str
    text: str


@dataclass(frozen=True)
class Manual:
    """The sections of one module or of one topic of the language reference."""

    name: str
    sections: tuple[Section, ...]

    @property
    def text(self) -> str:
        """All sections as plain text."""
        return "\n\n".join(f"{section.heading}\n\n{section.text}" for section in self.sections)


def library_folder() -> Path:
    """Returns the folder of the standard library's sources.

    Raises:
        DataError: this Python has no sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    if not (folder / "os.py").is_file():
        raise DataError(f"standard library {folder}: no sources (os.py); use a Python that brings its .py files")
    return folder


def module_manuals(names: Sequence[str], root: Path | None = None) -> Iterator[Manual]:
    """Yields the manual of every module of `names`; a package stands for all its modules. Missing ones are skipped.

    Args:
        names: Modules and packages, as paths below `root`.
        root: The folder of the sources; None: that of the standard library.
    """
    root = root or library_folder()
    for name in names:
        path = root / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            sections = _sections(source)
            if sections:
                module = ".".join(source.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
                yield Manual(module, tuple(sections))


def language_manuals() -> Iterator[Manual]:
    """Yields the topics of the language reference, longest first, because most short ones are parts of long ones."""
    tree = _parse(library_folder() / _LANGUAGE_REFERENCE)
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign)] if tree else []
    topics = [table for table in map(ast.literal_eval, tables) if isinstance(table, dict)]
    for topic in topics:
        for name, text in sorted(topic.items(), key=lambda item: (-len(item[1]), item[0])):
            parts = _UNDERLINED.split(f"\n{text}")
            headed = zip(parts[1::2], parts[2::2], strict=True)
            sections = [Section(heading, body.strip("\n")) for heading, body in headed if body.strip()]
            if sections:
                yield Manual(str(name), tuple(sections))


def _sections(source: Path) -> list[Section]:
    tree = _parse(source)
    if tree is None:
        return []
    module = source.parent.name if source.stem == "__init__" else source.stem
    sections = []
    first = ast.get_docstring(tree)
    if first and len(first) >= _MINIMUM_CHARACTERS:
        sections.append(Section(f"The module {module}", first))
    for node, owner in _definitions(tree, ""):
        text = ast.get_docstring(node)
        if text and len(text) >= _MINIMUM_CHARACTERS:
            kind = "class" if isinstance(node, ast.ClassDef) else "method" if owner else "function"
            sections.append(Section(f"The {kind} {owner}{node.name}", text))
    comments = "\n\n".join(_comments(source))
    if comments:
        sections.append(Section(f"Notes on {module}", comments))
    return sections


def _definitions(
    node: ast.AST, owner: str
) -> Iterator[tuple[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITIONS):
            yield child, owner
            yield from _definitions(child, f"{owner}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _definitions(child, owner)


def _comments(source: Path) -> Iterator[str]:
    """Yields blocks of whole-line comments that are prose, without licence headers and commented-out code."""
    lines: list[str] = []
    last = 0
    for row, text in [*_comment_lines(source), (0, "")]:
        if row != last + 1:
            block = "\n".join(lines).strip("\n")
            words = re.findall(r"[A-Za-z]{2,}", block)
            readable = sum(map(len, words)) >= 0.7 * len(re.sub(r"\s", "", block))
            if len(lines) >= _MINIMUM_COMMENT_LINES and readable and "opyright" not in block:
                yield block
            lines = []
        lines.append(text)
        last = row


def _comment_lines(source: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(source) as file:
        text = file.read()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            yield token.start[0], token.string.lstrip("#").removeprefix(" ").rstrip()


def _parse(source: Path) -> ast.Module | None:
    """Returns the syntax tree of a source file, or None if this Python lacks the file."""
    try:
        return ast.parse(source.read_bytes())
    except (FileNotFoundError, SyntaxError, ValueError):
        return None
