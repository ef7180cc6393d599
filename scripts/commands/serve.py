"""`trfmoe serve`: a run's model behind transformers' own OpenAI-compatible server."""

import json
import os
import shlex
import socket
from typing import Annotated

import typer

from scripts.commands.generate import LastOption, RoundOption, RunArgument


def serve(
    run: RunArgument = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    number: RoundOption = None,
    last: LastOption = False,
) -> None:
    """Serve a run's model with transformers' server (OpenAI-compatible)."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers.utils.import_utils import is_serve_available

    from scripts.run.models.exporting import export_round
    from scripts.run.run_folders import run_with_model
    from scripts.terminal.output import Output
    from server.run_folder.models import better_start, choose_round, unit_of
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.model.stock.exporting import export_remarks

    output = Output()
    if not is_serve_available():
        raise ConfigError("transformers' server is not installed; install it with: pip install 'trfmoe[serve]'")
    _check_free(host, port)
    folder = run_with_model(run)
    chosen = choose_round(folder, number, last)
    if remark := better_start(folder, chosen):
        Output.warning(remark)
    name = folder.path.name
    out = folder.path / "export" / f"round-{chosen:06d}" / name
    if not out.exists():
        export_round(folder, chosen, out)
    from scripts.run.model_server import make_app, serve_model

    experts = "eager" if export_remarks(folder.recipe.model) else None
    app = make_app(out, name, folder.recipe.data.normalization, experts)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    body = json.dumps({"model": name, "prompt": "The", "max_tokens": 50})
    output.line(
        f"the model after {unit_of(folder)} {chosen} of {folder.path} is served as {name} until Ctrl-C; ask it:"
    )
    output.line(f"  curl {address}/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}")
    output.line(f"with vLLM instead: vllm serve {shlex.quote(str(out))} --served-model-name {shlex.quote(name)}")
    serve_model(app, host, port)


def _check_free(host: str, port: int) -> None:
    from trfmoe_core.errors import ConfigError

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}); choose another"
        ) from error
