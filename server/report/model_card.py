"""The model card of an export: what the model is, from whom it learnt how much, and how good it was on held-out text.

Its format is that of the Hugging Face hub: YAML between two lines of dashes, then Markdown.
"""

from collections.abc import Sequence

from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from server.run_folder.ledger import ledger
from trfmoe_core.config import recipe_hash
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.terminal import visible


def model_card(folder: RunFolder, number: int, model: MoETransformer, remarks: Sequence[str] = ()) -> str:
    """Returns the card of the model after a round, as Markdown. It names no path and no text of a node.

    Args:
        folder: The run.
        number: The round or step.
        model: The model of that round.
        remarks: What else is to be said of it, such as who was left out. The numbers are those of the whole model then.

    Raises:
        RunFolderError: The journal cannot be read.
    """
    history = RunHistory(read_events(folder.events_path) if folder.events_path.exists() else ())
    shape, started = model.config, history.started
    parameters = sum(weights.numel() for weights in model.named_weights().values())
    measured = history.evaluated.get(number, {})
    lines = [
        *("---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [mixture-of-experts, tr-fmoe]"),
        *("---", "", f"# {_word(folder.recipe.name)}", ""),
        "A mixture-of-experts language model, trained with TR-FMoE. "
        f"This is the model after {history.unit} {number} of {history.num_rounds or 'unknown'}.",
        "",
        *("| | |", "|---|---|"),
        f"| parameters | {parameters:,} |",
        f"| layers, width | {shape.layers}, {shape.width} |",
        f"| experts a layer, of which a token takes | {shape.experts}, {shape.top_k} |",
        f"| tokens a sequence in training | {shape.context} |",
        f"| optimizer, highest rate | {folder.recipe.training.optimizer}, {folder.recipe.training.learning_rate:g} |",
        f"| digest of the weights | {history.committed.get(number, {}).get('digest', 'not trained here')} |",
        f"| hash of the recipe | {recipe_hash(folder.recipe)} |",
        *(f"| {name} | {version} |" for name, version in (started.get("versions") or {}).items()),
    ]
    if measured.get("bits_per_byte") is not None:
        lines += ["", f"On held-out text it needs {measured['bits_per_byte']:.4f} bits a byte."]
    for remark in remarks:
        lines += ["", f"{_word(remark)}."]
    if remarks:
        lines += ["", "The digest and the numbers in this card are of the model before that."]
    if folder.imported_path.exists():
        lines += ["", "It began with the weights of another model; the licence of that model applies too."]
    if accounts := ledger(history):
        bits = measured.get("nodes", {})
        lines += ["", "| node | tokens trained | votes that counted | bits a byte |", "|---|---|---|---|"]
        for name, account in accounts.items():
            own = bits.get(name, {}).get("bits_per_byte")
            level = "not measured" if own is None else f"{own:.4f}"
            lines.append(f"| {_word(name)} | {account.tokens:,} | {100 * account.share:.0f} % | {level} |")
    return "\n".join([*lines, ""])


def _word(text: str) -> str:
    """Returns a name from elsewhere so that it can change neither a table nor a line."""
    return visible(text, layout="").replace("|", "/").replace("`", "'")
