"""No network where a recipe says so."""

import os
import sys

from trfmoe_core.config.data import DataConfig


def keep_offline(config: DataConfig) -> None:
    """Makes the Hugging Face libraries of this process and its children touch no network if `data.offline` says so."""
    if not config.offline:
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    # They read the environment when they are imported, which may have been before.
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
