"""The learning rate as a pure function of the step."""

import math

from trfmoe_core.config.training import TrainingConfig


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Returns the learning rate of step `step` (0 is the first).

    It rises linearly over `warmup_steps` (at most half of the run). Then, by `schedule`, it falls to
    `min_learning_rate` at the last step, by a cosine (arXiv 1608.03983) or a line, or stays constant. After the last
    step it keeps the last value.
    """
    warmup = min(config.warmup_steps, total_steps // 2)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0 - done
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * left
