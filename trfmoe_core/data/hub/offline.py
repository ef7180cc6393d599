"""Keeps the Hugging Face libraries off the network."""

import os
import sys

from trfmoe_core.config.data import DataConfig


def keep_offline(config: DataConfig) -> None:
    """If `config.offline`, keeps the Hugging Face libraries of this process and its children off the network."""
    if not config.offline:
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    # The libraries read the environment when they are imported. That may have happened already.
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
