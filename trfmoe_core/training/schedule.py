"""The learning rate as a pure function of the step."""

import math

from trfmoe_core.config.training import TrainingConfig


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Returns the learning rate of step `step` (0 is the first).

    It rises linearly over `warmup_steps` (at most half of the run). Then, by `schedule`, it falls to
    `last_learning_rate` at the last step, by a cosine (arXiv 1608.03983) or a line, or stays constant. After the last
    step it keeps the last value.
    """
    warmup = min(config.warmup_steps, total_steps // 2)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0 - done
    return config.last_learning_rate + (config.learning_rate - config.last_learning_rate) * left


def schedule_remarks(config: TrainingConfig, total_steps: int) -> list[str]:
    """Returns one sentence for every setting whose effect on the learning rate is probably not what was meant."""
    remarks = []
    warmup, rate, last = min(config.warmup_steps, total_steps // 2), config.learning_rate, config.last_learning_rate
    if config.warmup_steps > warmup:
        instead = f"rises until step {warmup} instead" if warmup else "does not rise, and begins at its full height"
        remarks.append(
            f"training.warmup_steps: {config.warmup_steps} is more than half of the run's {total_steps} "
            f"step{'s' if total_steps > 1 else ''}; the learning rate {instead}"
        )
    if config.schedule != "constant" and last > rate / 10 * (1 + 1e-9):
        falls = "stays at" if last == rate else f"falls only from {rate:g} to"
        remarks.append(
            f"training.min_learning_rate: {last:g} is more than a tenth of learning_rate {rate:g}; the learning rate "
            f"{falls} {last:g}; leave min_learning_rate out, and it falls to {rate / 10:g}"
        )
    return remarks
