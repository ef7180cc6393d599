"""The models that can be scored: of a run, or of a folder that transformers opens."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trfmoe_core.errors import RunFolderError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from server.run_folder.folder import RunFolder
    from trfmoe_core.data.tokenizers import Tokenizer

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class ScoredModel:
    """A model that is ready to be scored.

    Attributes:
        name: For people.
        tokenizer: Of the model.
        context: The most tokens of a sequence; None: the model names no limit.
        logits: (B, T) tokens to (B, T, V) logits, in float32.
    """

    name: str
    tokenizer: "Tokenizer"
    context: int | None
    logits: "Callable[[Tensor], Tensor]"


def is_stock(path: Path | None) -> bool:
    """Returns whether a path is the folder of a stock model, such as an export."""
    return path is not None and (path / CONFIG_FILE).is_file() and not (path / "recipe.yaml").is_file()


def run_model(folder: "RunFolder", number: int, device: "torch.device") -> ScoredModel:
    """Returns the model of a run after a round; round 0 is the imported model.

    Raises:
        RunFolderError: There is no such model.
    """
    from server.run_folder.models import load_model

    model, tokenizer = load_model(folder, number)
    model.to(device).eval()

    def logits(tokens: "Tensor") -> "Tensor":
        found: Tensor = model(tokens).logits_BTV
        return found

    name = f"{folder.path.name}, round {number}" if number else f"{folder.path.name} as it was imported"
    return ScoredModel(name, tokenizer, model.config.context, logits)


def stock_model(folder: Path, device: "torch.device") -> ScoredModel:
    """Returns the model of a folder that transformers opens. Neither code nor pickles of the folder are loaded.

    Raises:
        RunFolderError: It is no causal language model, lacks weights, or has other weights than its config.json says.
        DataError: Its tokenizer cannot be used.
        ConfigError: Its tokenizer has more tokens than the model has rows.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.errors import ConfigError

    disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = load_tokenizer(str(folder.absolute()))
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunFolderError(
            f"{folder}: transformers does not open it as a causal language model ({reason}); give a folder with "
            f"{CONFIG_FILE}, *.safetensors and a tokenizer"
        ) from error
    model, found = opened
    _refuse_incomplete(folder, found)
    rows = int(model.get_input_embeddings().num_embeddings)
    if tokenizer.vocab_size > rows:
        raise ConfigError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and the model {rows} rows; "
            "give a folder whose two parts belong together"
        )
    model.to(device).eval()
    if hasattr(model, "set_experts_implementation"):
        # Also experts whose widths transformers' fast kernel refuses are computed by `eager`.
        model.set_experts_implementation("eager")
    context = getattr(model.config, "max_position_embeddings", None)
    return ScoredModel(str(folder), tokenizer, context, lambda tokens: model(input_ids=tokens, use_cache=False).logits)


def _refuse_incomplete(folder: Path, found: dict[str, Any]) -> None:
    """Refuses a model some of whose weights transformers has drawn at random or left unread.

    Raises:
        RunFolderError: There are some.
    """
    for kind, what in (
        ("missing_keys", "are missing, and"),
        ("mismatched_keys", "have other shapes than"),
        ("unexpected_keys", "have no place by"),
    ):
        if names := sorted(str(name) for name in found.get(kind, ())):
            raise RunFolderError(
                f"{folder}: {len(names)} weights, such as {names[0]}, {what} {CONFIG_FILE}"
                f"{' asks for them' * (kind == 'missing_keys')}; give the whole folder"
            )
