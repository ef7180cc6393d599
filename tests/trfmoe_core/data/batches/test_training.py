import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import words
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.training import place_of, training_stream
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.sources.files import FilesSource
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.model.transformer import build_model

MODEL = {"layers": 2, "width": 32, "heads": 2, "experts": 4, "expert_width": 32, "context": 64}
PACKED = {"model": {**MODEL, "document_mask": True}, "data": {"packing": "best_fit", "piece_bytes": 64}}


def two_sources(folder: Path, recipe: Recipe, paragraphs: int = 2000) -> Corpus:
    entries = []
    for number, weight in enumerate((3.0, 1.0)):
        path = folder / f"{number}.txt"
        path.write_text(words(number, paragraphs))
        entries.append(FilesSource(source="files", path=str(path), weight=weight))
    return prepare_corpus(entries, recipe.data, ByteTokenizer(), folder / "cache")


def test_a_place_is_plain_json_and_goes_on_exactly(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"model": MODEL})
    corpus = two_sources(tmp_path, recipe)
    with closing(training_stream(corpus, recipe, 5)) as stream:
        batches = [stream.next() for _ in range(7)]
        place = json.loads(json.dumps(place_of(corpus, stream)))
        expected = [stream.next() for _ in range(5)]
    more = recipe.model_copy(update={"data": recipe.data.model_copy(update={"loader_threads": 3})})
    with closing(training_stream(corpus, more, 5, place)) as stream:
        for batch in expected:
            np.testing.assert_array_equal(stream.next(), batch)
    # Other data: the place means nothing there, and the stream begins anew.
    other = two_sources(tmp_path, recipe, paragraphs=2400)
    with closing(training_stream(other, recipe, 5, place)) as stream:
        assert all(cursor.epoch == cursor.row == 0 for cursor in stream.cursors)
        assert stream.next().shape == batches[0].shape


def test_texts_in_one_row_do_not_see_each_other() -> None:
    """Changing one document of a row changes no other's loss, to the bit."""
    recipe = Recipe.model_validate(PACKED)
    model = build_model(recipe.model, 320, 0, bos_id=256).eval()
    row = torch.tensor([[256, *b"first text", 256, *b"the second", 256, *b"third", 256, 256, 256]])
    changed = row.clone()
    changed[0, 1:11] = torch.tensor(list(b"other word"))

    def losses(tokens: torch.Tensor) -> torch.Tensor:
        logits = model(tokens[:, :-1]).logits_BTV
        assert logits is not None
        return torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="none")

    with torch.no_grad():
        before, after = losses(row), losses(changed)
    assert not torch.equal(before[:10], after[:10])
    assert torch.equal(before[11:21], after[11:21])
    assert torch.equal(before[22:27], after[22:27])


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_what_is_ignored_is_padding_alone(tmp_path: Path, packing: str) -> None:
    recipe = Recipe.model_validate({**PACKED, "data": {"packing": packing, "piece_bytes": 200}})
    corpus = two_sources(tmp_path, recipe)
    with closing(training_stream(corpus, recipe, 5)) as stream:
        assert stream.ignored_target == (256 if packing == "best_fit" else None)
        targets = np.concatenate([stream.next()[:, 1:] for _ in range(20)])
    counted = targets != stream.ignored_target
    assert (counted.mean() == 1.0) == (packing == "concatenate")
    assert counted.mean() > 0.9


def test_a_federation_learns_from_packed_mixtures(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    rounds = {"num_rounds": 2, "local_steps": 3, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    recipe = tiny_recipe(
        rounds=rounds, **{**PACKED, "training": {"batch_size": 8, "learning_rate": 0.003, "warmup_steps": 2}}
    )
    extra = tmp_path / "extra.txt"
    extra.write_text(words(9, 1000))
    entry = FilesSource(source="files", path=str(extra), weight=0.5, on_end="stop")
    nodes = [node.model_copy(update={"data": [*node.data, entry]}) for node in recipe.nodes]
    _, events = run_recipe(recipe.model_copy(update={"nodes": nodes}))
    (finished,) = of_kind(events, "run_finished")
    assert finished["outcome"] == "completed"
    bits = [event["bits_per_byte"] for event in of_kind(events, "evaluated")]
    assert bits[-1] < bits[0]
    joined = of_kind(events, "node_joined")[0]
    assert joined["notes"] == ["2 sources share the training tokens", "remarks in the node's log: 1"]
    assert str(tmp_path) not in json.dumps(joined["notes"])
