"""Serves one exported model by the parts of transformers' own server, as an OpenAI server answers.

Transformers' command lists the models of the hub's cache, names a model by its path, and answers a chat with a base
model by a traceback. Here the one model has a short name, and a plain chat template if it came without one.
"""

import logging
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from tokenizers import NormalizedString, normalizers
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.response import ResponseHandler
from transformers.cli.serving.server import build_server
from transformers.cli.serving.systemone import SystemOneHandler
from transformers.cli.serving.transcription import TranscriptionHandler
from transformers.cli.serving.utils import GenerationState

from trfmoe_core.data.documents.clean import Normalization, normalize

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ '\\n\\n' }}{% endfor %}"
)
"""The contents of all messages, one after the other: a base model goes on with this text."""
_NEEDED = {"/v1/chat/completions": ("messages", list), "/v1/completions": ("prompt", str)}


class OneModel(ModelManager):
    """Loads the model of one folder, under a short name."""

    def __init__(self, folder: Path, name: str, normalization: Normalization, experts: str | None) -> None:
        """Loads the model.

        Args:
            folder: The exported model.
            name: What it is called in requests and answers.
            normalization: How prompts are normalised: as the training text was.
            experts: Implementation of the experts in transformers; None: its own choice.
        """
        self._normalization = normalization
        self._folder, self._name, self._experts, self._since = folder, name, experts, int(time.time())
        super().__init__(device="auto", dtype="auto", force_model=name)

    @staticmethod
    def process_model_name(model_id: str) -> str:
        """Returns the name as it is, without a revision."""
        return model_id

    def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:  # type: ignore[override]
        """Returns the list of models: this one."""
        return [{"id": self._name, "object": "model", "created": self._since, "owned_by": "trfmoe"}]

    def _load_processor(self, model_id_and_revision: str, gguf_file: str | None = None) -> Any:
        processor = super()._load_processor(f"{self._folder}@main", gguf_file)
        processor.chat_template = processor.chat_template or PLAIN_TEMPLATE
        normalise_prompts(processor, self._normalization)
        return processor

    def _load_model(self, model_id_and_revision: str, *arguments: Any, **options: Any) -> Any:
        model = super()._load_model(f"{self._folder}@main", *arguments, **options)
        if self._experts:
            model.set_experts_implementation(self._experts)
        return model


class PromptNormalizer:
    """A normalizer of the `tokenizers` library that does what `documents.clean.normalize` does."""

    def __init__(self, normalization: Normalization) -> None:
        self._normalization = normalization

    def normalize(self, text: NormalizedString) -> None:
        """Replaces the characters of a prompt."""
        given = str(text.normalized)
        normal = normalize(given, self._normalization)
        if normal != given:
            text.replace(given, normal)


def normalise_prompts(tokenizer: Any, normalization: Normalization) -> None:
    """Lets a tokenizer of transformers normalise what it encodes."""
    backend = tokenizer.backend_tokenizer
    ours = normalizers.Normalizer.custom(PromptNormalizer(normalization))
    backend.normalizer = normalizers.Sequence([ours, backend.normalizer]) if backend.normalizer else ours


def make_app(folder: Path, name: str, normalization: Normalization, experts: str | None = None) -> FastAPI:
    """Returns the application that answers for the model in `folder`, which is called `name`.

    Args:
        folder: The exported model.
        name: What it is called in requests and answers.
        normalization: How prompts are normalised: as the training text was.
        experts: Implementation of the experts in transformers; None: its own choice.
    """
    manager, state = OneModel(folder, name, normalization, experts), GenerationState()
    app: FastAPI = build_server(
        manager,
        ChatCompletionHandler(manager, state),
        completion_handler=CompletionHandler(manager, state),
        response_handler=ResponseHandler(manager, state),
        transcription_handler=TranscriptionHandler(manager, state),
        systemone_handler=SystemOneHandler(manager, state),
        generation_state=state,
    )

    @app.get("/v1/models/{model}")
    def one_model(model: str) -> dict[str, Any]:
        if model != name:
            raise HTTPException(404, f"model {model!r} is not served here; it is {name!r}")
        return manager.get_gen_models()[0]

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> JSONResponse:
        return _problem(500, f"{type(error).__name__}: {error}")

    @app.middleware("http")
    async def check(request: Request, call_next: Any) -> Any:
        if request.method == "POST" and request.url.path in _NEEDED:
            key, kind = _NEEDED[request.url.path]
            try:
                body = await request.json()
            except ValueError:
                return _problem(400, "the request's body is no JSON")
            if not isinstance(body, dict) or not isinstance(body.get(key), kind) or not body[key]:
                return _problem(400, f"{key!r} is missing, empty, or no {kind.__name__}")
        return await call_next(request)

    return app


def _problem(status: int, message: str) -> JSONResponse:
    """Returns an answer in the form of OpenAI's errors."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


def serve_model(app: FastAPI, host: str, port: int) -> None:
    """Answers requests until Ctrl-C or SIGTERM."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        uvicorn.run(app, host=host, port=port, log_level="warning")
    except KeyboardInterrupt:
        return
