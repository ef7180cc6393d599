"""Downloads the files of a tokenizer from the Hugging Face hub, without any code, into the hub's own local cache."""

from pathlib import Path

from trfmoe_core.data.documents.reports import first_line
from trfmoe_core.errors import DataError

# The files of a tokenizer. `config.json` names the kind of model if the tokenizer's own files do not.
FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
]


def download(name: str) -> Path:
    """Returns a local folder with the tokenizer files of the hub's repository `name`.

    If the hub cannot be reached, an earlier download is used. The access token is read from `HF_TOKEN`.

    Raises:
        DataError: there is no such repository, no access to it, or no network and no earlier download.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    where = f"tokenizer {name!r}: there is no such folder ({Path(name).absolute()}), and on the Hugging Face hub"
    remedy = "give the path of a tokenizer folder, or use byte"
    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES))
    except GatedRepoError as error:
        raise DataError(f"{where} it needs permission; ask for it there and set HF_TOKEN, or {remedy}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            f"{where} there is no such name; correct it, set HF_TOKEN if it is private, or {remedy}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise DataError(
            f"{where} nothing can be reached (no network, or HF_HUB_OFFLINE is set) and nothing was kept from before; "
            f"connect once, or {remedy}"
        ) from error
    except Exception as error:  # its network errors have no common base
        raise DataError(f"{where} an error came up: {first_line(error)}; try again, or {remedy}") from error
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise DataError(f"{where} the repository holds no tokenizer.json or vocab.json; {remedy}")
    return folder
