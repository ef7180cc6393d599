"""Things registered by name: every module of a package is loaded once, and each registers itself."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Registry(Mapping[str, Item], Generic[Item]):
    """What the modules of one package registered; they are imported when it is first asked."""

    def __init__(self, package: str) -> None:
        """`package` is the dotted name of the package whose modules register themselves."""
        self._package = package
        self._items: dict[str, Item] = {}
        self._loaded = False

    def add(self, name: str, item: Item) -> None:
        """Registers `item`; a name stands for one thing only."""
        if self._items.setdefault(name, item) is not item:
            raise ValueError(f"{self._package}: {name!r} is registered twice")

    def __getitem__(self, name: str) -> Item:
        """Returns the item of this name."""
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        """Yields the names in sorted order."""
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        """Number of items."""
        return len(self._all())

    def _all(self) -> dict[str, Item]:
        if not self._loaded:
            self._loaded = True
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
        return self._items
