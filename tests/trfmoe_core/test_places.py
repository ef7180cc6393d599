"""A path that is made from somebody else's name stays in its folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.settings import state_folder
from trfmoe_core.config import NodeSettings
from trfmoe_core.errors import PathError
from trfmoe_core.places import inside

BAD = [
    "", ".", "..", "../x", "x/../other", "x/y", "/etc/passwd", "a\\b", "a\x00b", "a\nb", "a b", " a", ".hidden",
    "~root", "-rf", "_x", "name.", "con", "NUL", "com1.txt", "a:b", "ä", "a" * 201, "\u202ea", "a\x1b[2J", "%2e%2e",
    "$HOME", "a*",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_no_plain_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(PathError, match="cannot be a file's name"):
        inside(tmp_path, name)
    with pytest.raises(PathError, match="cannot be a file's name"):
        inside(tmp_path, "good", name)


@pytest.mark.parametrize("name", ["ada", "0" * 32, "north.clinic-2_b", "a..b", "ada.log", "1", "console", "a" * 200])
def test_plain_names(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path / "not there yet", name, "ada") == tmp_path / "not there yet" / name / "ada"


@given(st.text(max_size=40))
def test_whatever_is_let_in_stays_inside(name: str) -> None:
    base = Path("/some/base")
    try:
        path = inside(base, name)
    except PathError:
        return
    assert path.parent == base and path.resolve() == path and name.isascii() and name.isprintable()


def test_links_may_lead_to_the_base_but_not_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "disk")
    assert inside(tmp_path / "base", "run", "ada") == tmp_path / "base" / "run" / "ada"
    for name, target in (("out", tmp_path / "elsewhere"), ("up", tmp_path), ("self", tmp_path / "disk")):
        (tmp_path / "disk" / name).symlink_to(target)
        with pytest.raises(PathError, match="out of"):
            inside(tmp_path / "base", name)
    (tmp_path / "disk" / "run" / "ada").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PathError, match="out of"):
        inside(tmp_path / "base", "run", "ada")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "disk" / "loop")
    inside(tmp_path / "base", "loop")  # leads nowhere; opening it fails


def test_a_run_cannot_name_another_runs_state(tmp_path: Path) -> None:
    settings = NodeSettings.model_validate({"name": "ada", "data": ["x"], "state_dir": str(tmp_path)})
    assert state_folder(settings, "run") == tmp_path / "run" / "ada"
    with pytest.raises(PathError):
        state_folder(settings, "x/../other")
