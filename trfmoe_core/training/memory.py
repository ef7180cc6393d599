"""How much memory training takes, computed from a recipe before anything is allocated, and how much there is.

A slot is one token at one of its experts.
"""

import math
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.malloc import MAX_FREE_BYTES
from trfmoe_core.model.attention.base import ATTENTIONS
from trfmoe_core.model.experts.base import EXPERTS
from trfmoe_core.model.local_experts import LocalExperts
from trfmoe_core.model.loss import chunk_rows
from trfmoe_core.model.products import ONEDNN
from trfmoe_core.model.transformer import frozen_shapes, parameter_shapes
from trfmoe_core.training.device import resolve_precision

FLOAT = 4
"""Bytes of a float32 number."""
HEAP_GAPS = 1.5
"""Freed memory that glibc keeps on the CPU, up to `MAX_FREE_BYTES`, in units of one layer's activations. Measured."""
KERNELS = 350_000_000
"""Bytes of oneDNN's compiled kernels on the CPU, one for every number of rows that an expert gets. Measured."""
PROGRAM = 320_000_000
"""Bytes of the program itself: Python, torch and the libraries that read data. Measured."""
CUDA_PROGRAM = 600_000_000
"""Bytes that a process takes on a CUDA device for its context and the libraries' kernels."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """The bytes that one process takes on its device while it trains."""

    weights: int
    """The model itself, with what of it is never trained."""
    gradients: int
    moments: int
    """The optimizer's running averages."""
    activations: int
    """What the forward pass keeps for the backward pass, gaps of the allocator included."""
    temporary: int
    """What exists for one layer, one part of the loss or one optimizer step at a time."""
    saving: int
    """Copies of the weights while a checkpoint is written. There are no gradients and activations then."""
    program: int

    @property
    def peak(self) -> int:
        """The most at one time."""
        lasting = self.program + self.weights + self.moments
        training = self.gradients + self.activations + self.temporary
        return lasting + max(training, self.saving)


def training_memory(
    model: ModelConfig,
    training: TrainingConfig,
    vocab_size: int,
    device: torch.device,
    local: Sequence[LocalExperts] | None = None,
) -> TrainingMemory:
    """Returns what training takes in one process, in bytes.

    Args:
        model: Sizes and parts of the model.
        training: Batch size, precision, optimizer and gradient checkpointing.
        vocab_size: The tokenizer's, padded; the model's own comes first.
        device: Where the process trains.
        local: Of each layer, which experts are on this node and which are trained; None: all are.

    Raises:
        ConfigError: If the config names a kind of expert or attention that does not exist.
    """
    shapes = parameter_shapes(model, vocab_size, local, training.freeze)
    parameters = sum(shape.numel() for shape in shapes.values())
    number = 2 if resolve_precision(training.precision, device, model.width) == torch.bfloat16 else FLOAT
    # With bfloat16 products, frozen matrices are kept in it (`MoETransformer.halve_frozen`).
    frozen = number * sum(shape.numel() for shape in frozen_shapes(model, vocab_size, training.freeze).values())
    layer, backward = _of_layer(model, training, number)
    loss, loss_work = _of_loss(model, training, model.vocab_size or vocab_size, number, device)
    stream = training.batch_size * model.context * model.width * number
    checkpointing = training.gradient_checkpointing
    kept = loss + (model.layers * stream + layer if checkpointing else model.layers * layer)
    casts = number * parameters if number != FLOAT else 0
    gaps = 0 if device.type == "cuda" else min(MAX_FREE_BYTES, math.ceil(HEAP_GAPS * layer))
    moments, step = _of_optimizer(training, shapes)
    tables = model.context * model.head_width * FLOAT
    on_cuda = device.type == "cuda"
    kernels = KERNELS if ONEDNN and not on_cuda and number == FLOAT else 0
    return TrainingMemory(
        weights=FLOAT * parameters + frozen + tables,
        gradients=FLOAT * parameters,
        moments=moments,
        activations=kept + gaps + casts,
        temporary=max(backward, loss_work, step),
        saving=0 if on_cuda else 2 * FLOAT * parameters,
        program=CUDA_PROGRAM if on_cuda else PROGRAM + kernels,
    )


def _of_layer(model: ModelConfig, training: TrainingConfig, number: int) -> tuple[int, int]:
    """Returns the bytes that one layer keeps for its backward pass, and those that this pass takes on top."""
    tokens = training.batch_size * model.context
    slots = tokens * model.top_k
    experts = EXPERTS.find(model.expert)
    # The residual stream and its normalised copy, before the attention and before the experts.
    wide = 4 * model.width + ATTENTIONS.find(model.attention).activation_width(model)
    expert_width = experts.activation_width(model)
    kept = number * (tokens * wide + slots * expert_width)
    kept += FLOAT * tokens * (model.experts + 3 * model.heads + 2)  # router, softmax's sums, norms
    kept += 8 * 4 * slots  # where each slot goes
    if model.document_mask:
        kept += number * training.batch_size * model.context**2
    backward = number * slots * (expert_width // 2 + 2 * model.width)
    return kept, backward


def _of_loss(
    model: ModelConfig, training: TrainingConfig, vocab_size: int, number: int, device: torch.device
) -> tuple[int, int]:
    """Returns the bytes that the loss keeps, and those that it takes while it is computed."""
    stream = training.batch_size * model.context * model.width * number
    rows = min(chunk_rows(vocab_size, device), training.batch_size * model.context)
    logits = rows * vocab_size * (FLOAT if number == FLOAT else FLOAT + 2 * number)
    return 3 * stream, logits + FLOAT * vocab_size * model.width


def _of_optimizer(training: TrainingConfig, shapes: Mapping[str, Tensor]) -> tuple[int, int]:
    """Returns the bytes of the moments, and those that a step takes on top."""
    parameters = sum(shape.numel() for shape in shapes.values())
    if training.optimizer != "muon":
        return 2 * FLOAT * parameters, 0
    hidden = {name: shape.numel() for name, shape in shapes.items() if _is_hidden(name, shape)}
    matrices = sum(hidden.values())
    # Directions of all matrices, and for those of one shape a stack and three results of the iteration.
    by_shape: dict[tuple[int, ...], int] = {}
    for name, count in hidden.items():
        shape = tuple(shapes[name].shape[-2:])
        by_shape[shape] = by_shape.get(shape, 0) + count
    work = matrices + 4 * max(by_shape.values(), default=0)
    return FLOAT * (2 * parameters - matrices), FLOAT * work


def _is_hidden(name: str, shape: Tensor) -> bool:
    return shape.ndim > 1 and (".experts." in name or ".attention." in name)


def free_memory(device: torch.device) -> tuple[int, str]:
    """Returns the bytes that a new process may take on a device, and in words what sets this limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free), f"free on {device}"
    found = [(int(psutil.virtual_memory().available), "free on this machine")]
    found += [(free, "left of this process's memory limit (control group)") for free in _control_group()]
    for name, kind in (("RLIMIT_AS", resource.RLIMIT_AS), ("RLIMIT_DATA", resource.RLIMIT_DATA)):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            found.append((soft, f"allowed for this process ({name}, ulimit)"))
    return min(found)


def _control_group(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Returns what is left below the memory limits of this process's control groups (cgroup version 2)."""
    try:
        place = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    left = []
    folder = root / place.strip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        try:
            limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text().strip()
            freeable = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit.isdigit() and used.isdigit():
            left.append(int(limit) - int(used) + int(freeable.get("inactive_file", 0)))
    return left
