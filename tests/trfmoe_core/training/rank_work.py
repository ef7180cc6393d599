"""What the ranks of `test_launch.py` do."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from tests.trfmoe_core.training.test_trainer import MODEL, VOCAB, CountingStream, make_config
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.launch import run_rank
from trfmoe_core.training.ranks import Ranks
from trfmoe_core.training.trainer import Trainer

STEPS = 5

SPARSE = MODEL.model_copy(update={"experts": 24, "balance_weight": 0.5})
"""So many experts that some are idle in every step of `Trickle`."""


class Trickle(CountingStream):
    """Four tokens a sequence."""

    def next(self) -> npt.NDArray[np.int64]:
        return super().next()[:, :5]


class Padded(CountingStream):
    """Rows that end in more and more padding, so that ranks have different numbers of targets."""

    ignored_target = 63

    def next(self) -> npt.NDArray[np.int64]:
        batch = super().next()
        for number, row in enumerate(batch):
            row[len(row) - 4 * number :] = self.ignored_target
        return batch


STREAMS = {"busy": CountingStream, "sparse": Trickle, "padded": Padded}


def work(ranks: Ranks, device: torch.device, arguments: list[str]) -> None:
    kind, folder = arguments[0], Path(arguments[1])
    torch.set_num_threads(1)
    (folder / f"pid-{ranks.rank}").write_text(str(os.getpid()))
    if kind == "train":
        both_models(ranks, device, folder)
    elif kind == "muon":
        with_muon(ranks, device, folder)
    elif kind == "resume":
        resumed(ranks, device, folder)
    elif ranks.rank == 1 and kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif ranks.rank == 1 and kind == "raises":
        raise ValueError("the disk of rank 1 is on fire")
    elif kind == "sleeps":
        time.sleep(600)
    ranks.wait()


def both_models(ranks: Ranks, device: torch.device, folder: Path, batch_size: int = 2) -> None:
    """Trains a model whose experts all have work, one with idle experts that accumulates, and one on padded rows."""
    for name, model, accumulation in (("busy", MODEL, 1), ("sparse", SPARSE, 2), ("padded", MODEL, 1)):
        config = make_config(batch_size=batch_size, accumulation=accumulation)
        trainer = Trainer(build_model(model, VOCAB, 0), config, STEPS, device, ranks=ranks)
        rows = batch_size * ranks.size
        stream: Any = STREAMS[name](rows)
        curve = []
        for _ in range(STEPS):
            metrics = trainer.train(stream, 1)
            curve.append([metrics.loss, metrics.balance_loss, metrics.grad_norm, metrics.tokens])
        if ranks.is_first:
            (folder / f"{name}.json").write_text(json.dumps([curve, metrics.expert_share]))
        save_file({**trainer.model.state_dict(), **trainer.state()}, folder / f"{name}-{ranks.rank}")


def with_muon(ranks: Ranks, device: torch.device, folder: Path, batch_size: int = 2) -> None:
    """Trains the model with idle experts by Muon, without and with a cut in the middle."""
    config = make_config(batch_size=batch_size, optimizer="muon")
    rows = batch_size * ranks.size

    def fresh(seed: int) -> Trainer:
        return Trainer(build_model(SPARSE, VOCAB, seed), config, STEPS, device, ranks=ranks)

    whole, second = fresh(0), fresh(1)
    stream: Any = Trickle(rows)
    whole.train(stream, 2)
    second.model.load_state_dict(whole.model.state_dict())
    second.load_state(whole.state())
    whole.train(stream, STEPS - 2)
    second.train(Trickle(rows, position=2), STEPS - 2)  # type: ignore[arg-type]
    for name, trainer in (("whole", whole), ("cut", second)):
        save_file({**trainer.model.state_dict(), **trainer.state()}, folder / f"{name}-{ranks.rank}")


def resumed(ranks: Ranks, device: torch.device, folder: Path) -> None:
    """Trains without and with a cut in the middle, where all that is left is what was saved."""
    config = make_config(batch_size=2)

    def fresh(seed: int) -> Trainer:
        return Trainer(build_model(MODEL, VOCAB, seed), config, STEPS, device, ranks=ranks)

    whole, first, second = fresh(0), fresh(0), fresh(1)
    stream: Any = CountingStream(2 * ranks.size)
    whole.train(stream, STEPS)
    stream = CountingStream(2 * ranks.size)
    first.train(stream, 2)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state(first.state())
    second.train(stream, STEPS - 2)
    for name, trainer in (("whole", whole), ("cut", second)):
        save_file({**trainer.model.state_dict(), **trainer.state()}, folder / f"{name}-{ranks.rank}")


if __name__ == "__main__":
    run_rank(work)
