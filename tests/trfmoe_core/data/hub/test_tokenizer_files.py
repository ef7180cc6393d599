"""The hub's way, against a little server that answers like it."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT
from trfmoe_core.data.tokenizers.train import train_bpe

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = (
    "import sys\n"
    "from trfmoe_core.data.tokenizers import load_tokenizer\n"
    "from trfmoe_core.errors import DataError\n"
    "try:\n"
    "    one = load_tokenizer(sys.argv[1])\n"
    "    print(one.name, one.vocab_size, one.bos_id, one.encode('the fox').tolist())\n"
    "except DataError as error:\n"
    "    print(error); sys.exit(2)\n"
)


def old_style_files() -> dict[str, bytes]:
    """A folder as DialoGPT's: a vocabulary and merges, and no word about special tokens."""
    trained = train_bpe(["the quick brown fox jumps over the lazy dog"] * 4, 300, "x")
    model = json.loads(trained.backend.to_str())["model"]
    vocabulary = {piece: index for piece, index in model["vocab"].items() if index > 2} | {"<|endoftext|>": 0}
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]) + "\n"
    return {
        "vocab.json": json.dumps(vocabulary).encode(),
        "merges.txt": merges.encode(),
        "config.json": b'{"model_type": "gpt2"}',
        "tokenizer_config.json": b'{"model_max_length": 1024}',
        "pytorch_model.bin": b"never to be asked for",
    }


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Yields the address of a hub with the one repository org/chat, and what was asked of it."""
    files, asked = old_style_files(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if path == "/api/models/org/chat/revision/main":
                siblings = [{"rfilename": file} for file in files]
                self.answer(json.dumps({"id": "org/chat", "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(f"/api/models/org/chat/tree/{COMMIT}"):
                tree = [{"type": "file", "path": file, "size": len(data), "oid": file} for file, data in files.items()]
                self.answer(json.dumps(tree).encode())
            elif path.startswith("/org/chat/resolve/") and name in files:
                self.answer(files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
            else:
                self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, status=401)

        do_HEAD = do_GET

        def answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def load(name: str, cache: Path, endpoint: str, **more: str) -> tuple[int, str]:
    """Loads a tokenizer by name in a process of its own: the hub's library reads its settings at import."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name],
        env={**clean, "NO_PROXY": "127.0.0.1", **own, **more},
        cwd=cache,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_name_on_the_hub_is_fetched_once_and_then_needs_no_network(
    tmp_path: Path, hub: tuple[str, list[str]]
) -> None:
    address, asked = hub
    code, said = load("org/chat", tmp_path, address)
    assert (code, said.split()[0]) == (0, "org/chat")
    assert said.split()[1:3] == ["291", "0"]
    assert asked
    assert not any("pytorch_model" in path and "/resolve/" in path for path in asked)
    asked.clear()
    assert load("org/chat", tmp_path, address, HF_HUB_OFFLINE="1") == (0, said)
    assert not asked


def test_names_that_lead_nowhere_say_what_to_do(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    code, said = load("org/other", tmp_path, hub[0])
    assert code == 2
    assert "org/other" in said
    assert "correct it" in said
    code, said = load("org/chat", tmp_path, "http://127.0.0.1:9")
    assert code == 2
    assert "nothing can be reached" in said
    assert "use byte" in said
