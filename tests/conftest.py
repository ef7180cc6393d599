"""Small recipes, small texts, and a federation in one process."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

from trfmoe_core.config import Recipe

# A shell that starts the tests in the background ignores Ctrl-C in them, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine any example may take long, and that is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "and",
    "dog",
    "ran",
    "to",
    "see",
    "how",
    "river",
    "went",
    "over",
    "hill",
    "with",
    "stone",
    "bread",
    "water",
    "light",
]


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("TRFMOE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRFMOE_HOME", raising=False)


def words(seed: int, count: int) -> str:
    """Sentences of a few words over and over, which a small model learns quickly."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(WORDS, k=8)) + "." for _ in range(count // 8)]
    return "\n\n".join("\n".join(lines[i : i + 5]) for i in range(0, len(lines), 5))


TINY = {
    "name": "tiny",
    "model": {"layers": 2, "width": 32, "heads": 2, "experts": 4, "top_k": 2, "expert_width": 32, "context": 32},
    "data": {"piece_bytes": 512, "evaluation_tokens": 1024},
    "training": {"threads": 1, "batch_size": 4, "warmup_steps": 2, "learning_rate": 0.003, "min_learning_rate": 0.0003},
    "rounds": {"num_rounds": 3, "local_steps": 4, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0},
}


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Returns a maker of three-node recipes over small texts; keyword arguments replace top-level keys."""

    def make(**changes: object) -> Recipe:
        nodes = []
        for number, name in enumerate(("ada", "bob", "cyd")):
            folder = tmp_path / "texts" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "text.txt").write_text(words(number, 4000))
            small = {"min_steps": 1, "min_batch": 1, "min_tokens": 1, "min_evaluation_tokens": 1}
            nodes.append(
                {
                    "name": name,
                    "data": [str(folder)],
                    "state_dir": str(tmp_path / "state"),
                    "limits": dict(small),
                    "salt": "",
                }
            )
        raw = {**TINY, "run_root": str(tmp_path / "runs"), "nodes": nodes, **changes}
        return Recipe.model_validate(raw)

    return make
