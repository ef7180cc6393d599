"""The report as a page on this machine that follows the run. It is served on the loopback address alone."""

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from server.report.page import render
from server.run_folder.history import RunHistory
from server.run_folder.journal import JournalReader
from server.run_folder.journal_entries import complete_entries

POLL_MS = 2000
_SCRIPT = f"""<script>
let seen = "";
async function look() {{
  try {{
    const answer = await fetch("/body", {{headers: seen ? {{"If-None-Match": seen}} : {{}}}});
    if (answer.status === 200) {{
      seen = answer.headers.get("ETag");
      const open = [...document.querySelectorAll("details")].map(one => one.open);
      document.body.innerHTML = await answer.text();
      document.querySelectorAll("details").forEach((one, number) => one.open = open[number] || false);
    }}
    document.body.classList.remove("gone");
  }} catch {{ document.body.classList.add("gone"); }}
  setTimeout(look, {POLL_MS});
}}
setTimeout(look, {POLL_MS});
</script>
<style>body.gone::before {{ content: "trfmoe watch has ended; this page no longer changes"; display: block;
  padding: .5rem; border: 2px solid; margin-bottom: 1rem; }}</style>
<noscript><meta http-equiv="refresh" content="10"></noscript>"""


class LiveReport:
    """The report of a run folder, made again when the journal has grown.

    Args:
        folder: The run folder, or a copy of one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = JournalReader(folder / "events.jsonl")
        self._history = RunHistory()
        self._lock = threading.Lock()
        self._entries, self._page = -1, ""

    def page(self) -> tuple[str, str]:
        """Returns the whole document, and a mark that changes with it.

        Raises:
            RunFolderError: The journal cannot be read.
        """
        with self._lock, complete_entries("an entry of the journal"):
            for event in self._reader.read():
                self._history.feed(event)
            if self._reader.head.entries != self._entries:
                self._entries = self._reader.head.entries
                self._page = render(self._history, self._folder)
            return self._page, f'"{self._entries}"'


class LiveServer(ThreadingHTTPServer):
    """Serves a live report.

    Args:
        report: What is shown.
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, report: LiveReport, port: int) -> None:
        self.report = report
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer

    def do_GET(self) -> None:
        """Answers with the page, its body, or 404."""
        # Another name means that a page from elsewhere had its name resolved to this machine (DNS rebinding).
        allowed = {f"{host}:{self.server.server_port}" for host in ("127.0.0.1", "localhost")}
        if self.headers.get("Host") not in allowed:
            self._answer(HTTPStatus.FORBIDDEN, "ask for 127.0.0.1")
            return
        page, mark = self.server.report.page()
        if self.path == "/":
            self._answer(HTTPStatus.OK, page.replace("</head>", f"{_SCRIPT}</head>"), mark)
        elif self.path != "/body":
            self._answer(HTTPStatus.NOT_FOUND, "there is only /")
        elif self.headers.get("If-None-Match") == mark:
            self._answer(HTTPStatus.NOT_MODIFIED, "", mark)
        else:
            body = page[page.index("<body>") + len("<body>") : page.rindex("</body>")]
            self._answer(HTTPStatus.OK, body, mark)

    def _answer(self, status: HTTPStatus, text: str, mark: str = "") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Frame-Options", "DENY")
        if mark:
            self.send_header("ETag", mark)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a line for every look would hide the address."""
