"""The real Hugging Face hub behind `download.Hub`. Each of the library's many errors becomes one sentence."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trfmoe_core.data.documents.reports import first_line
from trfmoe_core.data.hub.download import HubSet, RowStream
from trfmoe_core.places import home

_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


class HuggingFace:
    """The real hub, or a local folder that is a copy of one of its repositories."""

    def revision(self, wanted: HubSet) -> str:
        """Returns the current commit of the data set; empty for a local copy."""
        if Path(wanted.repo).is_dir():
            return ""
        from huggingface_hub import HfApi

        info = HfApi(token=access_token([Path.cwd(), home()])).dataset_info(wanted.repo, revision=wanted.revision)
        return str(info.sha)

    def open(self, wanted: HubSet, revision: str, state: Any) -> RowStream:
        """Returns the rows of the data set that follow `state`."""
        import datasets

        # `download.fetch` alone retries and waits.
        for name in ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES"):
            setattr(datasets.config, name, 1)
        for name in ("READ_RETRY", "READ_SERVER_UNAVAILABLE_RETRY", "READ_RATE_LIMIT_RETRY"):
            setattr(datasets.config, f"STREAMING_{name}_INTERVAL", 0)
        rows = datasets.load_dataset(
            wanted.repo,
            wanted.config,
            split=wanted.split,
            streaming=True,
            revision=revision or None,
            token=access_token([Path.cwd(), home()]),
        )
        if state is not None:
            rows.load_state_dict(state)
        return _Rows(rows)

    def is_temporary(self, error: Exception) -> bool:
        """Returns True if the same request may succeed later: the connection broke, or the server is too busy."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        chain = _chain(error)
        if any(isinstance(link, OfflineModeIsEnabled) for link in chain):
            return False
        statuses = [code for link in chain if (code := _status(link)) is not None]
        if statuses:
            return any(code in _TEMPORARY for code in statuses)
        return any(isinstance(link, ConnectionError | TimeoutError | EOFError) or _is_transport(link) for link in chain)

    def explain(self, error: Exception, wanted: HubSet) -> str:
        """Returns the cause of `error` and the remedy, in words."""
        from datasets.exceptions import DatasetNotFoundError
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        chain = _chain(error)
        statuses = {_status(link) for link in chain}
        text = "\n".join(str(link) for link in chain)
        if any(isinstance(link, OfflineModeIsEnabled) for link in chain) or "OfflineModeIsEnabled" in text:
            return (
                "offline (data.offline or HF_HUB_OFFLINE is set), and not enough of it was downloaded before; "
                "go online once, or name local files with path:"
            )
        if any(isinstance(link, GatedRepoError) for link in chain) or 403 in statuses or "is a gated" in text:
            return "it needs permission; ask for it on its page on the hub and set HF_TOKEN, here or in .env"
        if 429 in statuses:
            return "the hub refuses so many requests; set HF_TOKEN, here or in .env, or go on later: nothing is lost"
        if configs := _known_configs(text):
            near = difflib.get_close_matches(wanted.config or "", configs, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(configs[:20])}"
            return f"no configuration {wanted.config!r}; {hint}"
        if split := re.search(r"(?:Unknown|Bad) split.*", text):
            return f"no split {wanted.split!r} ({split.group(0)[:200]}); correct split"
        not_found = (HFValidationError, RepositoryNotFoundError, DatasetNotFoundError, FileNotFoundError)
        if any(isinstance(link, not_found) for link in chain) or statuses & {401, 404}:
            return "no such folder, and no such data set on the hub; correct repo, or set HF_TOKEN if it is private"
        if self.is_temporary(error):
            return f"the hub cannot be reached ({first_line(error)}); check the network: nothing is lost, start again"
        return f"{type(error).__name__}: {first_line(error)}"


def access_token(folders: list[Path]) -> str | None:
    """Returns the user's token from `HF_TOKEN` or `HUGGING_FACE_HUB_TOKEN`.

    Args:
        folders: their `.env` files are read, in order, if the environment has neither.
    """
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    for name in names:
        if os.environ.get(name, "").strip():
            return os.environ[name].strip()
    for folder in folders:
        try:
            lines = (folder / ".env").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        for name in names:
            for line in lines:
                key, sign, value = line.strip().removeprefix("export ").partition("=")
                if sign and key.strip() == name and value.strip():
                    return value.strip().strip("'\"")
    return None


class _Rows:
    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        yield from self._rows

    def state(self) -> Any:
        return self._rows.state_dict()


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an error followed by its causes."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _status(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _is_transport(error: BaseException) -> bool:
    """Returns True for a network error of an HTTP library. These have no common base class."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        names & {"TransportError", "NetworkError", "ClientConnectionError", "ReadTimeoutError", "ProtocolError"}
    )


def _known_configs(text: str) -> list[str]:
    found = re.search(r"BuilderConfig .* not found\. Available: \[(.*?)\]", text, re.DOTALL)
    return re.findall(r"'([^']+)'", found.group(1)) if found else []
