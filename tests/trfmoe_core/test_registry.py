import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trfmoe_core.errors import ConfigError
from trfmoe_core.registry import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose two modules register a part each in the registry `own.PARTS`, and import each other."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from trfmoe_core.registry import Registry\nPARTS = Registry('toy.part', 'own')\n"
    )
    for name, other in (("one", "two"), ("two", "one")):
        code = f"import time, own, own.{other}\ntime.sleep(0.05)\n@own.PARTS.register('{name}')\ndef part(): ...\n"
        (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own"
    for name in [name for name in sys.modules if name.split(".")[0] == "own"]:
        del sys.modules[name]


def test_every_module_of_the_package_registers_its_part(package: str) -> None:
    import own

    assert "own.one" not in sys.modules
    assert own.PARTS.names() == ["one", "two"]
    assert own.PARTS.find("one") is sys.modules["own.one"].part


def test_a_second_thread_never_sees_half_of_the_parts(package: str) -> None:
    import own

    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.append(own.PARTS.names())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["one", "two"]] * 4


def test_unknown_and_taken_names_are_refused() -> None:
    parts: Registry[int] = Registry("toy.part")
    parts.register("one")(1)
    with pytest.raises(ConfigError, match=r"^toy\.part: 'two' is unknown; choose one of one"):
        parts.find("two")
    with pytest.raises(ConfigError, match=r"^toy\.part: two parts are called 'one'"):
        parts.register("one")(2)
    assert parts.find("one") == 1
