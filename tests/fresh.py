"""Runs programs as in fresh interpreters, at the cost of a fork each.

A process imports the libraries that this project uses, but nothing of the project itself, and forks for every program.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = (
    "numpy", "numpy.typing", "pydantic", "yaml", "platformdirs", "psutil", "typer", "rich.progress", "rich.table",
    "torch", "torch.utils.checkpoint", "safetensors.torch", "tokenizers", "huggingface_hub", "numba",
    "flwr.clientapp", "flwr.serverapp", "flwr.app", "flwr.simulation", "grpc", "cryptography.x509", "unittest.mock",
)  # fmt: skip

_RUNNER = """
import gc, importlib, json, os, sys, traceback
sys.path[:0] = json.loads(sys.argv[2])
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
gc.disable()
gc.freeze()
for name, program in json.load(sys.stdin).items():
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            exec(compile(program, name, "exec"), {"__name__": "__main__"})
            code = 0
        except BaseException:
            print(f"{name}: {traceback.format_exc()}", file=sys.stderr, flush=True)
        os._exit(code)
    if os.waitpid(child, 0)[1]:
        print(name, flush=True)
"""


def failures(programs: Mapping[str, str], *folders: Path) -> tuple[list[str], str]:
    """Runs programs given by name. Returns the names of those that failed, and what all of them wrote to stderr.

    Args:
        programs: name -> source code.
        folders: put in front of `sys.path`.
    """
    arguments = [json.dumps(LIBRARIES), json.dumps([str(folder) for folder in folders])]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _RUNNER, *arguments],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr
