"""Runs a function of a benchmark in a process of its own: `python -m scripts.bench.child MODULE:FUNCTION OPTIONS`.

A process of its own has no earlier measurement in its memory. Its libraries start with one thread, which they decide
when they are loaded. OPTIONS are the function's keyword arguments as JSON.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from trfmoe_core.places import APP_FOLDER

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run(function: str, **options: object) -> int:
    """Runs a function that shows its own result, and returns the exit code."""
    return _start(function, options, ONE_THREAD, capture=False).returncode


def result_of(function: str, environment: Mapping[str, str] = ONE_THREAD, **options: object) -> Any:
    """Returns what a function returns; its result travels as JSON.

    Args:
        function: MODULE:FUNCTION.
        environment: Variables that are set for the process, such as numbers of threads.
        options: Keyword arguments of the function.

    Raises:
        CalledProcessError: The process failed; it has written why.
    """
    done = _start(function, options, environment, capture=True)
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def _start(
    function: str, options: Mapping[str, object], environment: Mapping[str, str], *, capture: bool
) -> subprocess.CompletedProcess[str]:
    path = [str(APP_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-m", "scripts.bench.child", function, json.dumps(options)]
    return subprocess.run(command, env=variables, check=False, text=True, stdout=subprocess.PIPE if capture else None)


def _main() -> None:
    from trfmoe_core.errors import TRFMoEError

    module, _, name = sys.argv[1].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    except TRFMoEError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if result is not None:
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    _main()
