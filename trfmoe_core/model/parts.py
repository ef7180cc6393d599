"""Exchangeable parts by the name under which a recipe chooses them.

A part of your own is one file in `trfmoe_core/model/custom/`: it registers itself, and every file there is read before
a model is built.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

from trfmoe_core.errors import ConfigError

if TYPE_CHECKING:
    from trfmoe_core.model.attention import Attention
    from trfmoe_core.model.experts import Experts

Part = TypeVar("Part", bound=nn.Module)


class Parts(Generic[Part]):
    """The parts of one kind. `key` is the setting that chooses among them."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._known: dict[str, type[Part]] = {}

    def register(self, name: str) -> Callable[[type[Part]], type[Part]]:
        """Returns a class decorator that makes a part known.

        Raises:
            ConfigError: when another part has the name.
        """

        def keep(part: type[Part]) -> type[Part]:
            if name in self._known:
                raise ConfigError(f"{self.key}: two parts are called {name!r}; give {part.__qualname__} another name")
            self._known[name] = part
            return part

        return keep

    def get(self, name: str) -> type[Part]:
        """Returns the part of a name.

        Raises:
            ConfigError: when there is none.
        """
        _read_custom_parts()
        if name not in self._known:
            raise ConfigError(
                f"{self.key}: {name!r} is not known; choose one of {', '.join(sorted(self._known))}, or register it in "
                "a file of trfmoe_core/model/custom"
            )
        return self._known[name]


EXPERTS: "Parts[Experts]" = Parts("model.expert")
ATTENTIONS: "Parts[Attention]" = Parts("model.attention")


def _read_custom_parts() -> None:
    from trfmoe_core.model import attention, custom, experts  # noqa: F401  They register themselves.

    for module in pkgutil.iter_modules(custom.__path__):
        importlib.import_module(f"{custom.__name__}.{module.name}")
