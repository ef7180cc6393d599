"""The build backend of pyproject.toml: installs a checkout in place, and makes no wheel and no source archive.

A wheel would put `server`, `clients`, `scripts` and `configs` beside other packages of these names, and it would not
work: Flower makes the app that it ships to the nodes out of the checkout, its pyproject.toml included.
"""

import sys
from typing import NoReturn

from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

REASON = (
    "trfmoe is installed from a checkout, in place, and not as a wheel: Flower ships the checkout's files to nodes, "
    "and the packages server, clients, scripts and configs would collide with others of these names. Clone it, and run "
    "`make install`, or pip install --constraint constraints.txt --editable '.[train]'"
)


def _refuse(*_: object, **__: object) -> NoReturn:
    sys.exit(f"error: {REASON}")  # not as an exception: pip shows its whole traceback


# A frontend calls some of these first and others not at all; each refuses, before anything is downloaded or built.
get_requires_for_build_wheel = _refuse
prepare_metadata_for_build_wheel = _refuse
build_wheel = _refuse
get_requires_for_build_sdist = _refuse
build_sdist = _refuse
