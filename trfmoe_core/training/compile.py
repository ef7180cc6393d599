"""Compiles a model's layers, and says what is missing where that cannot be done."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.transformer import MoETransformer

_REMEDY = "set training.compile false"


def compile_layers(model: MoETransformer) -> None:
    """Lets torch compile every layer when it is first called; equal layers share the work.

    Raises:
        ConfigError: if there is no C++ compiler, which torch needs for that.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        raise ConfigError(
            f"training.compile: torch compiles with the C++ compiler {compiler}, which is not on the PATH; install it, "
            f"name another in the environment variable CXX, or {_REMEDY}"
        )
    for layer in model.layers:
        layer.compile()


@contextmanager
def compile_errors_explained() -> Iterator[None]:
    """Turns what torch's compiler raises into a `RunError`."""
    try:
        yield
    except Exception as error:
        # Torch's compiler has no common error class, and importing those that it has takes a second.
        if not any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunError(f"training.compile: the layers cannot be compiled here ({reason[:300]}); {_REMEDY}") from error
