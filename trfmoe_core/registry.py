"""Parts that a recipe chooses by name: data sources, file formats, kinds of experts, and the like.

A part is one file in the package that its registry reads. It registers itself:

    @FORMATS.register("csv")
    class CsvFormat(Format): ...
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from trfmoe_core.errors import ConfigError

Part = TypeVar("Part")
Registered = TypeVar("Registered")


class Registry(Generic[Part]):
    """The parts of one kind by name. The modules that register them are imported when a part is first looked up."""

    def __init__(self, kind: str, *places: str) -> None:
        """Creates a registry without parts.

        Args:
            kind: what messages call a part, best the setting that chooses it, e.g. `model.expert`.
            places: dotted names of modules, and of packages whose modules all take part.
        """
        self.kind = kind
        self._places = places
        self._parts: dict[str, Part] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Returns a decorator that registers a class or function under `name`.

        Raises:
            ConfigError: another part has this name.
        """

        def keep(part: Registered) -> Registered:
            if name in self._parts:
                raise ConfigError(f"{self.kind}: two parts are called {name!r}; give {part} another name")
            self._parts[name] = part  # type: ignore[assignment]
            return part

        return keep

    def names(self) -> list[str]:
        """Returns the names of all parts, sorted."""
        self._load()
        return sorted(self._parts)

    def find(self, name: str, key: str | None = None) -> Part:
        """Returns the part called `name`.

        Args:
            name: what was chosen.
            key: the setting or option that chose it, for the error; None: `kind`.

        Raises:
            ConfigError: there is none.
        """
        self._load()
        if name not in self._parts:
            raise ConfigError(f"{key or self.kind}: {name!r} is unknown; choose one of {', '.join(self.names())}")
        return self._parts[name]

    def _load(self) -> None:
        if self._loaded:
            return
        for place in self._places:
            module = importlib.import_module(place)
            for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
                importlib.import_module(f"{place}.{found.name}")
        # Set last: a second thread then waits for the imports instead of seeing half of the parts.
        self._loaded = True
