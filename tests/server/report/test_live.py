"""The live page follows the journal, and nobody else's page can read it."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.report.live import LiveReport, LiveServer
from tests.scripts.journal import events, write_journal


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    write_journal(tmp_path, events(rounds=2, finished=False))
    server = LiveServer(LiveReport(tmp_path), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server: LiveServer, path: str, **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.getheader("ETag") or ""
    connection.close()
    return found


def test_the_page_changes_with_the_journal(server: LiveServer, tmp_path: Path) -> None:
    status, page, mark = ask(server, "/")
    assert status == 200 and page.startswith("<!doctype html>") and "not finished" in page and "fetch(" in page
    assert ask(server, "/body", If_None_Match=mark)[0] == 304
    write_journal(tmp_path, events(rounds=2))
    status, body, newer = ask(server, "/body", If_None_Match=mark)
    assert status == 200 and "not finished" not in body and "<html" not in body and newer != mark


def test_other_paths_and_other_names_are_refused(server: LiveServer) -> None:
    assert ask(server, "/events.jsonl")[0] == 404
    assert ask(server, "/", Host="evil.example:80")[0] == 403
    assert server.server_address[0] == "127.0.0.1"
