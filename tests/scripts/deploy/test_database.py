"""Tests of the SuperLink's database."""

import contextlib
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from scripts.deploy.database import PAGE_BYTES, make_database


def _page_bytes(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_size").fetchone()[0])


@pytest.mark.skipif(
    " " in sys.prefix,
    reason="Flower's own migrations need a path without a space; deployments go around it (scripts/processes)",
)
def test_flower_keeps_its_objects_in_large_pages(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make_database(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]
    store = SqlObjectStore(str(path))
    store.initialize()
    assert len(store) == 0
    assert _page_bytes(path) == PAGE_BYTES


def test_a_database_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE kept (number)")
        connection.execute("INSERT INTO kept VALUES (7)")
        connection.commit()
    before = path.read_bytes()
    make_database(path)
    assert path.read_bytes() == before


def test_what_a_kill_left_does_not_stop_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "state.db.partial").write_bytes(b"half")
    make_database(tmp_path / "state.db")
    assert _page_bytes(tmp_path / "state.db") == PAGE_BYTES
