"""Formulas in MathML."""

from typing import Any

_TEX = "application/x-tex"
# What stands before the second part of a formula's element.
_SIGNS = {"mfrac": "/", "msup": "^", "msub": "_", "mroot": "^1/"}


def formula(math: Any) -> str:
    """Returns a formula as TeX if the file has it, otherwise its symbols in order."""
    for note in math.iter("{*}annotation"):
        if note.get("encoding") == _TEX and note.text:
            return str(note.text)
    if math.get("alttext"):
        return str(math.get("alttext"))
    symbols = []
    for element in math.iter("{*}*"):
        name = str(element.tag).rpartition("}")[2]
        parent = element.getparent()
        sign = "" if parent is None else _SIGNS.get(str(parent.tag).rpartition("}")[2], "")
        if sign and parent.index(element) == 1:
            symbols.append(sign)
        if name not in ("annotation", "annotation-xml") and element.text:
            symbols.append(element.text.strip())
    return "".join(symbols)
