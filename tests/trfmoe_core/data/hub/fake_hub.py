"""What `datasets` asks of the hub, answered from a local folder: names choose what goes wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "a" * 40
CARD = """---
configs:
- config_name: default
  data_files: [{split: train, path: "data/*/*"}]
- config_name: sample-10BT
  data_files: [{split: train, path: "sample/10BT/*"}]
---
"""


def write_repository(folder: Path) -> Path:
    """Writes a data set laid out as FineWeb: 150 documents in two shards of the sample, 10 elsewhere."""
    shards = {"sample/10BT/000.parquet": (0, 100), "sample/10BT/001.parquet": (100, 150)}
    for name, (start, stop) in {**shards, "data/CC-MAIN-2024-10/000.parquet": (900, 910)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "text": [f"Page {number} tells of {number * number} things." for number in range(start, stop)],
            "id": [f"<urn:uuid:{number}>" for number in range(start, stop)],
            "language": ["en"] * (stop - start),
            "token_count": list(range(start, stop)),
        }
        pq.write_table(pa.table(columns), folder / name, row_group_size=30)
    (folder / "README.md").write_text(CARD)
    return folder


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves `folder` as `some/data`; yields the endpoint and the tokens that were shown to it."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            tokens.append(self.headers.get("authorization", "").removeprefix("Bearer "))
            if "/some/gone" in path:
                return self.answer(b"{}", 404, x_error_code="RepoNotFound")
            if "/some/busy" in path:
                return self.answer(b"{}", 429)
            if "/some/closed" in path and "/resolve/" in path:
                return self.answer(b"{}", 403, x_error_code="GatedRepo")
            for name in ("some/data", "some/closed"):
                path = path.replace(name, "NAME")
            if path.startswith("/api/datasets/NAME"):
                return self.api(path.removeprefix("/api/datasets/NAME").strip("/"))
            file = folder / path.removeprefix(f"/datasets/NAME/resolve/{COMMIT}/")
            if not path.startswith("/datasets/NAME/resolve/") or not file.is_file():
                return self.answer(b"{}", 404, x_error_code="EntryNotFound")
            data, status, more = file.read_bytes(), 200, {}
            if asked := self.headers.get("range"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                end = min(int(last or len(data)), len(data) - 1)
                more = {"content_range": f"bytes {first}-{end}/{len(data)}"}
                data, status = data[int(first) : end + 1], 206
            return self.answer(data, status, etag='"e"', x_repo_commit=COMMIT, accept_ranges="bytes", **more)

        def api(self, rest: str) -> None:
            if rest in ("", f"revision/{COMMIT}"):
                info = {"id": "some/data", "sha": COMMIT, "siblings": [], "tags": [], "private": False}
                return self.answer(json.dumps(info).encode())
            base = folder / rest.removeprefix("tree/").removeprefix(COMMIT).strip("/")
            if not rest.startswith("tree/") or not base.is_dir():
                return self.answer(b"{}", 404, x_error_code="EntryNotFound")
            found = base.rglob("*") if "recursive=true" in self.path.lower() else base.iterdir()
            entries = [
                {
                    "type": "directory" if path.is_dir() else "file",
                    "path": str(path.relative_to(folder)),
                    "size": path.stat().st_size,
                    "oid": "0" * 40,
                }
                for path in sorted(found)
            ]
            return self.answer(json.dumps(entries).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
