"""The part of a recipe about training: how a node trains, and how `trfmoe train` evaluates and saves."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from trfmoe_core.config.section import Name, Section

Freeze = Literal["none", "base", "trunk"]
"""What is not trained besides the networks that low-rank experts share."""


class TrainingConfig(Section):
    """Local training on a node.

    One of `steps`, `tokens` and `epochs`, or `rounds`, determines how long a node trains.
    """

    steps: int | None = Field(
        None, ge=1, le=10**12, description="optimizer steps of a node over the whole run", examples=[2000]
    )
    tokens: int | None = Field(
        None, ge=1, le=10**15, description="tokens of a node over the whole run", examples=[100_000_000]
    )
    epochs: float | None = Field(
        None, gt=0, le=10**6, description="passes over the text; for trfmoe train only", examples=[3]
    )
    batch_size: int = Field(12, ge=1, le=1 << 20, description="sequences per step and device", examples=[8])
    accumulation: int = Field(1, ge=1, le=4096, description="micro-batches per step", examples=[4])
    optimizer: Name = Field(
        "adamw", description="adamw, muon, or one of your own in trfmoe_core/training/optimizers", examples=["muon"]
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=1, description="highest rate, reached after the warm-up; less for larger models", examples=[3e-4]
    )
    min_learning_rate: float | None = Field(
        None, ge=0, le=1, description="rate of the last step; null: a tenth of learning_rate", examples=[3e-5]
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the rate falls from the end of the warm-up to the last step"
    )
    warmup_steps: int = Field(
        20, ge=0, description="steps at the start over which the rate rises to learning_rate", examples=[100]
    )
    weight_decay: float = Field(
        0.1, ge=0, le=1, description="decay of matrices, times the rate, per step; norms do not decay", examples=[0.01]
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients, per step", examples=[0.95])
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the mean of their squares, per step", examples=[0.95])
    muon_momentum: float = Field(
        0.95, ge=0, lt=1, description="of hidden matrices, with optimizer muon", examples=[0.9]
    )
    freeze: Freeze = Field(
        "none",
        description="what is never trained, and sent to a node once. base: embedding, attention, norms, shared expert "
        "and head, so routers and experts train; trunk: routers too, so only experts train. What experts of kind "
        "low_rank share is never trained",
        examples=["base"],
    )
    clip_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to this norm", examples=[0.5])
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="auto: a GPU where there is one; cpu, cuda, or one GPU by number",
        examples=["cuda:0"],
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number type of products and activations; auto: bfloat16 where it trains faster"
    )
    threads: int | Literal["auto"] = Field(
        "auto",
        description="CPU threads of a process that trains; auto: all cores, shared by what trains at once, and fewer "
        "while other processes keep them busy. Another number gives other last bits",
        examples=[1],
    )
    devices: int | Literal["all"] = Field(
        1,
        description="devices of a node, each with batch_size sequences per step; all: every CUDA device",
        examples=["all"],
    )
    gradient_checkpointing: bool = Field(
        False, description="less memory for activations, about a third more computation"
    )
    compile: bool = Field(False, description="compile the layers; takes minutes at first, then training is faster")
    deterministic: bool = Field(
        False, description="bitwise equal results for any number of threads, and in every run on CUDA; slower"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate} is above learning_rate {self.learning_rate}; lower it"
            )
        given = [name for name in ("steps", "tokens", "epochs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{given[0]}: {' and '.join(given)} each determine the length of the run; keep one of them"
            )
        if isinstance(self.threads, int) and not 1 <= self.threads <= 1024:
            raise ValueError(f"threads: {self.threads}; give 1 to 1024, or auto")
        if isinstance(self.devices, int) and not 1 <= self.devices <= 1024:
            raise ValueError(f"devices: {self.devices}; give 1 to 1024, or all")
        if self.device.startswith("cuda:") and self.devices != 1:
            raise ValueError(f"devices: {self.devices}, but device is {self.device}, which is one; set device to cuda")
        return self

    @property
    def last_learning_rate(self) -> float:
        """Learning rate of the last step of a schedule that falls."""
        return self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate

    def budget(self, context: int, devices: int = 1, windows_per_epoch: int | None = None) -> int | None:
        """Returns the optimizer steps that `steps`, `tokens` or `epochs` give, rounded up; None if none is given.

        Args:
            context: tokens per sequence.
            devices: number of devices that take part in a step.
            windows_per_epoch: sequences in one pass over the text; with None, `epochs` is ignored.
        """
        sequences = self.batch_size * self.accumulation * devices
        if self.tokens is not None:
            return -(-self.tokens // (sequences * context))
        if self.epochs is not None and windows_per_epoch is not None:
            return max(1, math.ceil(self.epochs * windows_per_epoch / sequences))
        return self.steps


class LocalConfig(Section):
    """How often `trfmoe train` writes down, evaluates and saves."""

    log_every: int = Field(10, ge=1, description="steps from one point of the curves to the next", examples=[1])
    evaluate_every: int | None = Field(
        None,
        ge=1,
        description="steps from one evaluation to the next; null: one when a round of rounds.local_steps ends",
        examples=[500],
    )
    save_every: int | None = Field(
        None,
        ge=1,
        description="steps from one checkpoint to the next; null: one at every evaluation. The best model "
        "is saved in any case",
        examples=[1000],
    )
    keep_last: int = Field(2, ge=1, description="number of latest checkpoints to keep besides the best", examples=[5])
