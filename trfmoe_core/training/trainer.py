"""The local training loop: optimizer steps on one device or several, resumable bit for bit.

L = layers, E = experts.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trfmoe_core.blocks import expert_block
from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.counts import counted
from trfmoe_core.errors import RunError
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.compile import compile_errors_explained, compile_layers
from trfmoe_core.training.device import resolve_precision
from trfmoe_core.training.optimizers.base import OPTIMIZERS
from trfmoe_core.training.out_of_memory import out_of_memory_explained, peak_memory_bytes
from trfmoe_core.training.ranks import ALONE, Ranks
from trfmoe_core.training.schedule import learning_rate
from trfmoe_core.training.thread_choice import ThreadChoice

if TYPE_CHECKING:
    from trfmoe_core.data.batches.stream import BatchStream


@dataclass(frozen=True)
class TrainMetrics:
    """Results of one call of `Trainer.train`: means over its steps and all devices, if not said otherwise."""

    loss: float
    """Cross-entropy in nats a token."""
    balance_loss: float
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    """Of the last step."""
    tokens: int
    seconds: float
    data_wait_share: float
    """Share of the seconds spent waiting for batches."""
    peak_memory_bytes: int
    """The first rank's, since its process started: of the whole process on the CPU, of torch on a CUDA device."""
    expert_share: list[list[float]]
    """[L][E], each expert's share of its layer's slots; a row sums to 1."""


@dataclass(frozen=True)
class StepMetrics:
    """Results of one optimizer step, of this rank's rows of the batch."""

    step: int
    """Steps of the run so far, this one included."""
    loss: float
    """Cross-entropy in nats a token."""
    learning_rate: float
    tokens: int
    """Of all ranks together."""


class Trainer:
    """Trains with the recipe's optimizer, a learning-rate schedule, gradient clipping and accumulation.

    `step` counts the optimizer steps of the whole run. It alone decides the learning rate and torch's random numbers; a
    caller that continues without stored state may set it. With a fixed number of threads, saving the state and loading
    it again changes no bit of the result.

    Several ranks train one model with torch's DistributedDataParallel (arXiv 2006.15704), each on its own rows of every
    batch. The result differs from that of one device with the whole batch only by the order of sums; also the balance
    loss is the whole batch's, because the ranks add up their slot counts.

    Args:
        model: The model; it is moved to the device.
        config: Rates, sizes and precision.
        total_steps: Optimizer steps of the whole run, over which the schedule extends.
        device: Where to train.
        seed: Of the random numbers that parts of the model draw.
        ranks: The processes that train together.
        threads: Chooses the number of threads while it trains; None: it stays as it is.
    """

    def __init__(
        self,
        model: MoETransformer,
        config: TrainingConfig,
        total_steps: int,
        device: torch.device,
        seed: int = 0,
        ranks: Ranks = ALONE,
        threads: ThreadChoice | None = None,
    ) -> None:
        self._threads = threads
        self.config, self.total_steps, self.device, self.seed, self.ranks = config, total_steps, device, seed, ranks
        self.precision = resolve_precision(config.precision, device, model.config.width)
        self.step = 0
        with out_of_memory_explained(device, "moving the model to the device"):
            self.model = model.to(device)
        self.model.gradient_checkpointing = config.gradient_checkpointing
        if config.compile:
            compile_layers(self.model, device, self.precision)
        self._forward: nn.Module = self.model
        if ranks.size > 1:
            self.model.sum_counts = ranks.sum
            # Buffers are constants: without this, DDP would send them round before every step.
            constants = [name for name, _ in model.named_buffers()]
            ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
            ignore(self.model, constants)  # type: ignore[no-untyped-call]
            self._forward = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self._parameters = dict(model.named_parameters())
        optimizer = OPTIMIZERS.find(config.optimizer)
        self._optimizer = optimizer(self._parameters, config, model.by_expert, model.hidden_matrices())
        self._shape_LE = (model.config.layers, model.config.experts)
        self._waited_s = 0.0
        self._step_loss = 0.0
        if ranks.size > 2:
            self._settle_buckets()

    def train(
        self,
        stream: "BatchStream",
        steps: int,
        should_stop: Callable[[], bool] = lambda: False,
        on_step: Callable[[StepMetrics], None] | None = None,
    ) -> TrainMetrics:
        """Makes `steps` optimizer steps on the stream's next batches.

        Args:
            stream: Batches of all ranks together.
            steps: Optimizer steps.
            should_stop: Called between two steps; training ends early if it returns True on any rank. `step` then says
                how far it came.
            on_step: Called after every step.

        Raises:
            RunError: If a loss or gradient is not finite (the weights are useless then), memory runs out, or the layers
                cannot be compiled.
        """
        doing = f"training step {self.step + 1} on {self._size()}"
        with out_of_memory_explained(self.device, doing), compile_errors_explained():
            return self._train(stream, steps, should_stop, on_step)

    def state(self) -> dict[str, Tensor]:
        """Returns the step and the optimizer's state, see `BlockOptimizer.state`."""
        return {"step": torch.tensor(self.step), **self._optimizer.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from what `state` returned, possibly on another device or with another number of ranks.

        Raises:
            RunError: If the state belongs to another model.
        """
        self._optimizer.load_state(state)
        self.step = int(state["step"]) if "step" in state else 0

    def _train(
        self,
        stream: "BatchStream",
        steps: int,
        should_stop: Callable[[], bool] | None,
        on_step: Callable[[StepMetrics], None] | None,
    ) -> TrainMetrics:
        started = time.perf_counter()
        self._waited_s = 0.0
        if self.precision == torch.bfloat16:
            self.model.halve_frozen()
        self.model.train()
        sums_3 = torch.zeros(3, dtype=torch.float64, device=self.device)
        counts_LE = torch.zeros(self._shape_LE, dtype=torch.int64)
        tokens, rate, first = 0, 0.0, self.step
        if self._threads:
            self._threads.begin()
        for done in range(steps):
            if done and should_stop and self.ranks.largest(should_stop()):
                break
            torch.manual_seed(seed_for(self.seed, str(self.step), str(self.ranks.rank)))
            rate = learning_rate(self.step, self.total_steps, self.config)
            losses_2, step_counts_LE, step_tokens = self._gradients(stream)
            norm = self._clip()
            if self.device.type == "cpu":
                self._check_finite(losses_2, norm)
            self._optimizer.step(rate, self._idle(step_counts_LE))
            sums_3 += torch.cat([losses_2, norm.reshape(1)])
            counts_LE += step_counts_LE
            tokens += step_tokens
            self.step += 1
            if self._threads:
                self._threads.step_done()
            if on_step:
                on_step(StepMetrics(self.step, self._step_loss, rate, step_tokens))
        sums_3 = self.ranks.sum(sums_3) / self.ranks.size
        loss, balance, norm_mean = (sums_3 / max(1, self.step - first)).tolist()
        # On CUDA checking every step would make the host wait for the device; the means show any earlier fault.
        self._check_finite(sums_3[:2], sums_3[2])
        share_LE = counts_LE / counts_LE.sum(dim=1, keepdim=True).clamp(min=1)
        seconds = time.perf_counter() - started
        return TrainMetrics(
            loss=loss,
            balance_loss=balance,
            grad_norm=norm_mean,
            learning_rate=rate,
            tokens=tokens,
            seconds=seconds,
            data_wait_share=min(1.0, self._waited_s / max(seconds, 1e-9)),
            peak_memory_bytes=peak_memory_bytes(self.device),
            expert_share=share_LE.tolist(),
        )

    def _settle_buckets(self) -> None:
        """Makes DDP arrange its buckets now, by a backward pass whose gradients are deleted.

        By itself DDP does so after the first step. The place of a gradient in a bucket decides the order in which the
        ranks' parts are summed, so the first step after a resume would differ in its last bits.
        """
        tokens_BT = torch.zeros(self.config.batch_size, self.model.config.context, dtype=torch.long, device=self.device)
        self._forward(tokens_BT, tokens_BT).loss.backward()
        for parameter in self._parameters.values():
            parameter.grad = None

    def _gradients(self, stream: "BatchStream") -> tuple[Tensor, Tensor, int]:
        """Computes the gradients, those of the mean over all targets of the step, in the parameters' `.grad`.

        Returns:
            This rank's (cross-entropy, balance loss); the slots of each expert over all ranks, on the CPU; the tokens
            over all ranks.
        """
        parts = self.config.accumulation
        losses_2 = torch.zeros(2, dtype=torch.float32, device=self.device)
        counts_LE = torch.zeros(self._shape_LE, dtype=torch.int64, device=self.device)
        tokens = 0
        for part, (batch, mask, weight) in enumerate(self._batches(stream)):
            last = part == parts - 1
            wrapped = self._forward if isinstance(self._forward, DistributedDataParallel) else None
            with nullcontext() if wrapped is None or last else wrapped.no_sync():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                    output = self._forward(batch[:, :-1], batch[:, 1:], mask)
                counts_LE += output.expert_counts_LE
                losses_2 += torch.stack([weight * output.cross_entropy, output.balance_loss]).detach() / parts
                # Copied while the device computes the backward pass, so that nothing waits for counts and losses.
                counted_LE, _ = _to_host(counts_LE)
                lost_2, copied = _to_host(losses_2)
                loss = output.loss if weight == 1.0 else output.loss + (weight - 1.0) * output.cross_entropy
                (loss / parts).backward()
            tokens += batch[:, 1:].numel() * self.ranks.size
        if copied is not None:
            copied.synchronize()
        self._step_loss = float(lost_2[0])
        return losses_2, counted_LE, tokens

    def _batches(self, stream: "BatchStream") -> Iterator[tuple[Tensor, Tensor | None, float]]:
        """Yields, for every micro-batch: this rank's rows, the mask of its targets (None: all count), and its weight.

        The loss of a micro-batch on a rank is the mean over its own targets. The weight is its share of the targets of
        the whole step times the number of micro-batches and ranks, so that the mean of the weighted losses is the mean
        over all targets of the step.
        """
        ignored, parts = stream.ignored_target, self.config.accumulation
        if ignored is None:
            for _ in range(parts):
                yield self._on_device(self._rows_of_rank(self._next(stream))), None, 1.0
            return
        wholes = [self._next(stream) for _ in range(parts)]
        targets = max(1, sum(int((whole[:, 1:] != ignored).sum()) for whole in wholes))
        for whole in wholes:
            batch = self._rows_of_rank(whole)
            mask = batch[:, 1:] != ignored
            weight = parts * self.ranks.size * int(mask.sum()) / targets
            yield self._on_device(batch), self._on_device(mask), weight

    def _next(self, stream: "BatchStream") -> Tensor:
        started = time.perf_counter()
        whole = torch.from_numpy(stream.next())
        self._waited_s += time.perf_counter() - started
        return whole

    def _rows_of_rank(self, whole: Tensor) -> Tensor:
        rows = len(whole) // self.ranks.size
        return whole[self.ranks.rank * rows : (self.ranks.rank + 1) * rows]

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _idle(self, counts_LE: Tensor) -> set[str]:
        """Returns the blocks of the experts that received no token."""
        return {expert_block(layer, expert) for layer, expert in (counts_LE == 0).nonzero().tolist()}

    def _clip(self) -> Tensor:
        """Returns the global gradient norm, and scales the gradients down if it is above `clip_norm`."""
        grads = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        if self.device.type != "cpu" or norm > self.config.clip_norm:
            torch._foreach_mul_(grads, (self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _check_finite(self, losses_2: Tensor, norm: Tensor) -> None:
        values = [*losses_2.tolist(), norm.item()]
        if not all(math.isfinite(value) for value in values):
            raise RunError(
                f"training diverged at step {self.step}: loss {values[0]}, balance loss {values[1]}, gradient norm "
                f"{values[2]}; lower training.learning_rate, raise training.warmup_steps, or check the weights"
            )

    def _size(self) -> str:
        return (
            f"training.batch_size {counted(self.config.batch_size, 'sequence')} of {self.model.config.context} tokens"
        )


def _to_host(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Returns a copy on the CPU and, for a CUDA tensor, the event that marks the end of the copying."""
    if tensor.device.type != "cuda":
        return tensor, None
    copy, copied = tensor.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return copy, copied
