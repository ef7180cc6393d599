"""The local training loop: H optimizer steps on one device, resumable bit for bit.

L = layers, E = experts.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trfmoe_core.config.schema import TrainingConfig
from trfmoe_core.errors import RunError
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.device import resolve_precision
from trfmoe_core.training.schedule import learning_rate

if TYPE_CHECKING:
    from trfmoe_core.data.batches import BatchStream

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainMetrics:
    """Means over the steps of one call of `Trainer.train`."""

    loss: float
    """Cross-entropy in nats a token."""
    balance_loss: float
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    """Of the last step."""
    tokens: int
    seconds: float
    expert_share: list[list[float]]
    """[L][E], share of a layer's slots that each expert received; each row sums to 1."""


class Trainer:
    """AdamW with decoupled decay on matrices, warm-up and decay of the learning rate, clipping and accumulation.

    The model is moved to the device. `step` counts optimizer steps over the whole run and alone decides the learning
    rate; a caller that continues without stored state may set it. Training with state saved and loaded in between
    gives the same bits as training without.

    Args:
        total_steps: optimizer steps of the whole run, which the schedule spans.
    """

    def __init__(self, model: MoETransformer, config: TrainingConfig, total_steps: int, device: torch.device) -> None:
        self.model = model.to(device)
        self.config, self.total_steps, self.device = config, total_steps, device
        self.precision = resolve_precision(config.precision, device)
        self.step = 0
        self._parameters = dict(model.named_parameters())
        # The stacked experts count as matrices; norms are the only vectors.
        groups = [
            {"params": [p for p in self._parameters.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in self._parameters.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = (config.beta1, config.beta2)
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)

    def train(self, stream: "BatchStream", steps: int) -> TrainMetrics:
        """Makes `steps` optimizer steps on the stream's next batches and returns their means.

        Raises:
            RunError: if a loss or gradient is not finite; the weights are then of no use.
        """
        started = time.perf_counter()
        self.model.train()
        sums_3 = torch.zeros(3, dtype=torch.float64, device=self.device)
        shape = (self.model.config.layers, self.model.config.experts)
        counts_LE = torch.zeros(shape, dtype=torch.int64, device=self.device)
        tokens, rate = 0, 0.0
        for _ in range(steps):
            rate = learning_rate(self.step, self.total_steps, self.config)
            losses_2, step_counts_LE, step_tokens = self._gradients(stream)
            norm = self._clip()
            if self.device.type == "cpu":
                self._check_finite(losses_2, norm)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            sums_3 += torch.cat([losses_2, norm.reshape(1)])
            counts_LE += step_counts_LE
            tokens += step_tokens
            self.step += 1
        loss, balance, norm_mean = (sums_3 / max(1, steps)).tolist()
        # On CUDA a check a step would make the host wait for the device: one at the end sees any earlier fault.
        self._check_finite(sums_3[:2], sums_3[2])
        share_LE = counts_LE / counts_LE.sum(dim=1, keepdim=True).clamp(min=1)
        seconds = time.perf_counter() - started
        return TrainMetrics(loss, balance, norm_mean, rate, tokens, seconds, share_LE.tolist())

    def state(self) -> dict[str, Tensor]:
        """Returns the optimizer's moments by parameter name and the step counters, all as tensors.

        Keys: `step`, `moment_steps` (both int64 scalars), `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`.
        The tensors are the live ones: write or copy them before training goes on.
        """
        state = {"step": torch.tensor(self.step)}
        moment_steps = 0
        for name, parameter in self._parameters.items():
            entry = self._optimizer.state.get(parameter)
            if entry:
                moment_steps = int(entry["step"])
                state |= {f"{moment}.{name}": entry[moment] for moment in _MOMENTS}
        return state | {"moment_steps": torch.tensor(moment_steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from what `state` returned, possibly on another device.

        Raises:
            RunError: if the state belongs to another model.
        """
        moment_steps = int(state["moment_steps"]) if "moment_steps" in state else 0
        for name, parameter in self._parameters.items() if moment_steps else ():
            entry: dict[str, Tensor] = {}
            for moment in _MOMENTS:
                value = state.get(f"{moment}.{name}")
                if value is None or value.shape != parameter.shape:
                    found = "missing" if value is None else f"of shape {tuple(value.shape)}"
                    raise RunError(
                        f"optimizer state {moment}.{name} is {found}, the model needs {tuple(parameter.shape)}; "
                        "the state belongs to another model: delete it to begin with fresh moments"
                    )
                entry[moment] = value.to(self.device, torch.float32, copy=True)
            entry["step"] = torch.tensor(float(moment_steps), dtype=torch.float32, device=self.device)
            self._optimizer.state[parameter] = entry
        if not moment_steps:
            self._optimizer.state.clear()
        self.step = int(state["step"]) if "step" in state else 0

    def _gradients(self, stream: "BatchStream") -> tuple[Tensor, Tensor, int]:
        """Leaves in `.grad` the mean over the micro-batches; returns (cross-entropy, balance), counts and tokens."""
        parts = self.config.accumulation
        shape = (self.model.config.layers, self.model.config.experts)
        losses_2 = torch.zeros(2, dtype=torch.float32, device=self.device)
        counts_LE = torch.zeros(shape, dtype=torch.int64, device=self.device)
        tokens = 0
        for _ in range(parts):
            batch = torch.from_numpy(stream.next())
            if self.device.type == "cuda":
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                output = self.model(batch[:, :-1], batch[:, 1:])
            (output.loss / parts).backward()
            losses_2 += torch.stack([output.cross_entropy, output.balance_loss]).detach() / parts
            counts_LE += output.expert_counts_LE
            tokens += batch[:, 1:].numel()
        return losses_2, counts_LE, tokens

    def _clip(self) -> Tensor:
        """Returns the global gradient norm and scales the gradients so that it is at most `clip_norm`."""
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
