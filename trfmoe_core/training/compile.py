"""Compiles a model's layers, and explains why that fails."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.experts.base import Experts
from trfmoe_core.model.grouped import fastest_backend
from trfmoe_core.model.layers import Projection
from trfmoe_core.model.products import ONEDNN
from trfmoe_core.model.transformer import MoETransformer

_REMEDY = "set training.compile false"


def compile_layers(model: MoETransformer, device: torch.device, precision: torch.dtype) -> None:
    """Makes torch compile every layer at its first call; equal layers are compiled once.

    Args:
        model: The model; its layers are changed.
        device: Where it is going to compute.
        precision: The type of its products.

    Raises:
        ConfigError: If there is no C++ compiler, which torch needs for that.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        raise ConfigError(
            f"training.compile: torch compiles with the C++ compiler {compiler}, which is not on the PATH; install it, "
            f"name another in the environment variable CXX, or {_REMEDY}"
        )
    for layer in model.layers:
        for module in layer.modules():
            if not _can_be_compiled(module, device, precision):
                module.forward = torch.compiler.disable(module.forward)  # type: ignore[no-untyped-call]
        layer.compile()


def _can_be_compiled(module: nn.Module, device: torch.device, precision: torch.dtype) -> bool:
    if isinstance(module, Experts):
        # The shapes of the loop's products differ in every step: torch would compile them again and again.
        return all(fastest_backend(device, precision, stack) == "native" for stack in module.parameters())
    # torch's compiler does not know oneDNN's products.
    return not (isinstance(module, Projection) and ONEDNN and device.type == "cpu" and precision == torch.float32)


@contextmanager
def compile_errors_explained() -> Iterator[None]:
    """Turns the errors of torch's compiler into a `RunError`.

    Raises:
        RunError: If compiling fails.
    """
    try:
        yield
    except Exception as error:
        # Torch's compiler has no common error class, and importing those that it has takes a second.
        if not any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunError(f"training.compile: the layers cannot be compiled here ({reason[:300]}); {_REMEDY}") from error
