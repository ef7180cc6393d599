"""What a node's updates show of its text: the measurements behind docs/privacy.md.

`pytest tests/clients/test_what_updates_show.py -s` prints them. An input token moves its own row of the embedding;
rows of other tokens only shrink, by a weight decay that the coordinator can compute, since it chose the schedule.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from clients.worker import Worker
from server.app import initial_blocks
from server.run_folder.checkpoints import load_checkpoint
from server.run_folder.models import initial_model
from strategies.exchange.messages import TrainReply, TrainRequest, read_header, read_parcel
from tests.federation import run_recipe
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import Recipe, TransportConfig
from trfmoe_core.data.sample.stdlib_text import module_manuals
from trfmoe_core.data.tokenizers import Tokenizer, load_tokenizer
from trfmoe_core.data.tokenizers.train import train_bpe
from trfmoe_core.model.transformer import MoETransformer, build_model
from trfmoe_core.training.schedule import learning_rate
from trfmoe_core.wire import decode, encode

EMBEDDING = "embedding.weight"


def tokens_shown(update_VD: Tensor, base_VD: Tensor, rates: list[float], weight_decay: float) -> set[int]:
    """Returns the tokens whose rows moved by more than the weight decay explains: what a coordinator can compute."""
    kept = torch.tensor([1 - rate * weight_decay for rate in rates], dtype=torch.float64).prod()
    moved_V = (update_VD.double() - base_VD.double() * (kept - 1)).norm(dim=1)
    return set(torch.nonzero(moved_V > 0.1 * moved_V.max()).flatten().tolist())


@pytest.fixture
def seen() -> Iterator[set[int]]:
    """The tokens that the model was trained on: the truth."""
    tokens: set[int] = set()

    def look(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, MoETransformer) and module.training:
            tokens.update(arguments[0].flatten().tolist())

    handle = register_module_forward_pre_hook(look)
    yield tokens
    handle.remove()


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A text and a tokenizer of 2048 tokens that was trained on another text."""
    folder = tmp_path_factory.mktemp("prose")
    shared = " ".join(manual.text for manual in module_manuals(["email", "logging", "unittest"]))
    own = " ".join(manual.text for manual in module_manuals(["asyncio", "argparse", "http", "json"]))
    train_bpe([re.sub(r"\s+", " ", shared)], 2048, "words").save(folder / "words")
    (folder / "text.txt").write_text(re.sub(r"(\. )", r".\n\n", re.sub(r"\s+", " ", own)), encoding="utf-8")
    return folder / "text.txt", folder / "words"


def one_round(recipe: Recipe, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Returns the embedding that a node is sent, and the update of it that it sends back."""
    model = build_model(recipe.model, tokenizer.padded_vocab_size, recipe.seed)
    parameters = dict(model.named_parameters())
    layout = BlockLayout.of(parameters)
    blocks = layout.gather(parameters)
    parcel = encode(blocks, layout, "float32", 1 << 26)
    request = TrainRequest(
        run_id="run",
        round=1,
        epoch=1,
        base_digest=blocks_digest(blocks),
        steps=recipe.rounds.local_steps,
        held=layout.names,
        recipe=recipe.for_nodes().model_dump(mode="json"),
        index=parcel.index,
    )
    _, answer = Worker(recipe.nodes[0], request.recipe).work(request, parcel)
    assert answer is not None
    updates: Blocks = decode(answer, layout, layout.names, [recipe.transport.updates])  # type: ignore[assignment]
    base = parameters[EMBEDDING].detach().clone()
    layout.scatter(updates, parameters)
    return base, parameters[EMBEDDING].detach()


@pytest.mark.parametrize("updates", ["float32", "int8"])
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (1, 8), (2, 8), (25, 8)])
def test_a_round_shows_which_tokens_it_was_trained_on(
    tiny_recipe: Callable[..., Recipe], prose: tuple[Path, Path], seen: set[int], steps: int, batch: int, updates: str
) -> None:
    text, words = prose
    recipe = tiny_recipe(
        data={"tokenizer": str(words), "piece_bytes": 512, "evaluation_tokens": 64},
        training={"batch_size": batch, "warmup_steps": 2, "learning_rate": 0.003},
        rounds={"num_rounds": 10, "local_steps": steps},
        transport={"updates": updates},
    )
    node = recipe.nodes[0].model_copy(update={"data": [str(text)], "tokenizer": str(words)})
    recipe = recipe.model_copy(update={"nodes": [node, *recipe.nodes[1:]]})
    tokenizer = load_tokenizer(str(words))
    base, update = one_round(recipe, tokenizer)
    rates = [learning_rate(step, recipe.total_steps, recipe.training) for step in range(steps)]
    shown = tokens_shown(update, base, rates, recipe.training.weight_decay)
    precision, recall = len(shown & seen) / len(shown), len(shown & seen) / len(seen)
    print(  # noqa: T201  the table of docs/privacy.md
        f"\n{steps:>2} steps of {batch}, {updates:>7}: {len(seen):>4} of {tokenizer.vocab_size} tokens in the round, "
        f"{len(shown):>4} shown, precision {precision:.3f}, recall {recall:.3f}"
    )
    assert precision > 0.99 and recall > 0.9
    assert len(seen) < 0.8 * tokenizer.vocab_size, "that nearly all occur would show nothing"


def test_a_node_can_compute_another_ones_update_when_the_third_is_away(tiny_recipe: Callable[..., Recipe]) -> None:
    sent: dict[str, Blocks] = {}
    rounds = {"num_rounds": 1, "local_steps": 4, "nodes_deadline_s": 1.0, "reply_deadline_s": 1.0}
    recipe = tiny_recipe(rounds=rounds, transport=TransportConfig().model_dump())
    layout = BlockLayout.of(dict(build_model(recipe.model, 320, recipe.seed).named_parameters()))

    def listen(node_id: int, message: Message) -> Message | None:
        if "header" in message.content and "train_tokens" not in str(message.content["header"]):
            reply = read_header(message, TrainReply)
            if reply.index is not None:
                parcel = read_parcel(message, reply.index, 1 << 40)
                sent[reply.name] = decode(parcel, layout, layout.names, ["float32"])  # type: ignore[assignment]
                return None if node_id == 3 else message
        return message

    folder, _ = run_recipe(recipe, listen)
    _, before = initial_blocks(initial_model(folder, load_tokenizer("byte")))
    after = layout.gather(load_checkpoint(folder.path / "checkpoints", 1).weights)
    # All that ada has: the model before, the model after, and what it sent.
    guess = 2 * (after[TRUNK] - before[TRUNK]) - sent["ada"][TRUNK]
    cosines = {
        name: float(torch.nn.functional.cosine_similarity(guess, sent[name][TRUNK], dim=0)) for name in ("bob", "cyd")
    }
    print(f"\ncosine of ada's guess to the trunk's update of bob {cosines['bob']:.5f}, of cyd {cosines['cyd']:.5f}")  # noqa: T201
    assert cosines["bob"] > 0.99 > cosines["cyd"]
