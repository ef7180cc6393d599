"""Why a node refuses a request: a code of a closed set and a few numbers, without any text of the node.

The node's own log has the full reason with paths and file names. The coordinator derives from the code what the
operator may know and can do.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from trfmoe_core.config.section import Section

Code = Literal[
    "settings", "recipe", "name", "request", "data", "tokenizer", "tokenizer-missing", "differs", "device", "memory",
    "disk", "state", "not-finite", "ranks", "stopped", "internal",
    "limits-experts", "limits-memory", "limits-hours", "limits-data-sets", "limits-steps", "limits-batch",
    "limits-tokens", "limits-disk", "limits-network", "limits-evaluation",
]  # fmt: skip

Kind = Literal[
    "ArithmeticError", "AssertionError", "AttributeError", "EOFError", "FileNotFoundError", "ImportError", "IndexError",
    "KeyError", "LookupError", "ModuleNotFoundError", "NotImplementedError", "OSError", "PermissionError",
    "RecursionError", "RuntimeError", "TimeoutError", "TypeError", "UnicodeDecodeError", "UnicodeEncodeError",
    "ValidationError", "ValueError", "other",
]  # fmt: skip
"""Classes of exceptions that may be told; the class alone, since the text may quote a path or a line of a file."""

LARGEST = 10**15
Number = Annotated[int, Field(ge=0, le=LARGEST)]


class Refusal(Section):
    """A reason in a form that cannot carry an owner's text.

    `asked` and `granted` belong to the limits, `count` says how many entries of the node's `data` there are, and `kind`
    which class of exception was met where no other code fits.
    """

    code: Code
    asked: Number | None = None
    granted: Number | None = None
    count: Number | None = None
    kind: Kind | None = None


_LOG = "its log says more"
_SENTENCES: dict[str, str] = {
    "settings": "the settings of the node cannot be used; its owner mends node.yaml, {log}",
    "recipe": "the node does not understand the recipe; use one release everywhere, {log}",
    "name": "a name in the request is none that the node makes a folder of; use one release everywhere, {log}",
    "request": "what arrived at the node is not what was announced; use one release everywhere, {log}",
    "data": "the node can use none of its {count} entries of data; its owner mends them or node.yaml, {log}",
    "tokenizer": "the node cannot use its tokenizer; its owner copies the coordinator's tokenizer folder anew, {log}",
    "tokenizer-missing": "the node does not have the run's tokenizer; copy the coordinator's tokenizer folder to it, "
    "and its owner names it in node.yaml (tokenizer: FOLDER)",
    "differs": "the node says that its code or tokenizer is not the coordinator's; use one release and one tokenizer "
    "everywhere, {log}",
    "device": "the node does not have the device that it should train on; its owner mends device and devices in "
    "node.yaml, or set training.device of the recipe",
    "memory": "the node ran out of memory; use a smaller training.batch_size or model, or a larger node",
    "disk": "the node's disk is full; its owner frees space",
    "state": "the node cannot keep the state of this run; its owner mends state_dir and cache_dir, {log}",
    "not-finite": "the node's loss is not a finite number; lower training.learning_rate if all nodes say so, else its "
    "owner looks at the node's text and device",
    "ranks": "one of the node's devices failed in the training; {log}",
    "stopped": "the node's program was stopped while it worked; it takes part again by itself",
    "internal": "the node met an error of its own ({kind}); {log}",
    "limits-experts": "{asked} experts would be in the node's hands, and its owner grants {granted} (limits.experts); "
    "have more nodes or a smaller model",
    "limits-memory": "the training takes at least {asked} MB, and the node's owner grants {granted} MB "
    "(limits.memory_mb)",
    "limits-hours": "abstains: it is not the hour at which the node's owner lets it work (limits.hours)",
    "limits-data-sets": "the node's owner grants no data to a run of this name (limits.data_sets)",
    "limits-steps": "a round has {asked} local steps, and the node's owner wants at least {granted} "
    "(limits.min_steps); raise rounds.local_steps",
    "limits-batch": "a step has {asked} sequences, and the node's owner wants at least {granted} (limits.min_batch); "
    "raise training.batch_size or training.accumulation",
    "limits-tokens": "a round has {asked} tokens, and the node's owner wants at least {granted} (limits.min_tokens); "
    "raise rounds.local_steps or training.batch_size",
    "limits-evaluation": "an evaluation is over {asked} held-out tokens, and the node's owner wants at least {granted} "
    "(limits.min_evaluation_tokens); raise data.evaluation_tokens or data.held_out",
    "limits-disk": "the run takes {asked} MB of the node's disk, and its owner grants {granted} MB (limits.disk_mb)",
    "limits-network": "the run needs the Hugging Face hub, and the node's owner lets no run use it (limits.network); "
    "copy what is needed to the node",
}


def sentence(refusal: Refusal) -> str:
    """Returns the sentence for the operator, with the remedy."""
    numbers = {name: "?" if value is None else value for name, value in refusal.model_dump().items()}
    return _SENTENCES[refusal.code].format(**{**numbers, "log": _LOG})


def kind_of(error: BaseException) -> Kind:
    """Returns the nearest class of the error that is in the closed set."""
    known: dict[str, Kind] = {name: name for name in get_args(Kind)}
    return next((known[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in known), "other")
