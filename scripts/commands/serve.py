"""`trfmoe serve`: a run's model behind transformers' own OpenAI-compatible server."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from scripts.commands.generate import LastOption, RoundOption


def serve(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    number: RoundOption = None,
    last: LastOption = False,
) -> None:
    """Serve a run's model with transformers' server (OpenAI-compatible)."""
    from transformers.utils.import_utils import is_serve_available

    from scripts.commands.export import export_round
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.run_folder.models import choose_round
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.places import APP_FOLDER

    output = Output()
    if not is_serve_available():
        raise ConfigError("transformers' server is not installed; install it with: pip install 'trfmoe[serve]'")
    folder = run_folder(run)
    chosen = choose_round(folder, number, last)
    out = folder.path / "export" / f"round-{chosen:06d}"
    if not out.exists():
        export_round(folder, chosen, out)
    address = f"http://{host}:{port}/v1/completions"
    body = f'{{"model": "{out}", "prompt": "The", "max_tokens": 50}}'
    output.line(f"the model after round {chosen}, served by transformers until Ctrl-C; ask it:")
    output.line(f"  curl {address} -H 'Content-Type: application/json' -d {shlex.quote(body)}")
    output.line(f"with vLLM instead: vllm serve {shlex.quote(str(out))} --host {host} --port {port}")
    command = [sys.executable, "-m", "scripts.run.serving", folder.recipe.data.normalization, str(out)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(APP_FOLDER), os.environ.get("PYTHONPATH")]))
    os.environ["HF_HUB_OFFLINE"] = "1"
    # The server takes this process's place: it gets the signals, and nothing is left behind.
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])
