"""Without a node: each expert goes back to its newest kept version that the node has no part in, or it is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from server.run_folder.departure import model_without, plan_departure
from server.run_folder.folder import RunFolder
from server.run_folder.recorder import RunRecorder
from trfmoe_core.blocks import TRUNK, BlockLayout, blocks_digest
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.transformer import build_model

SHAPE = {"layers": 1, "width": 16, "heads": 2, "experts": 3, "top_k": 1, "expert_width": 8, "context": 16}
FIRST, SECOND, THIRD = (f"layers.0.experts.{number}" for number in range(3))
ACCEPTED = {
    1: {FIRST: ["ada", "bob"], SECOND: ["ada", "cyd"], THIRD: ["ada", "bob"], TRUNK: ["ada", "bob", "cyd"]},
    2: {FIRST: ["ada", "bob"], SECOND: ["ada", "bob"], THIRD: ["ada", "bob"], TRUNK: ["ada", "bob"]},
    3: {FIRST: ["ada", "bob"], SECOND: ["ada", "cyd"], THIRD: ["bob", "cyd"], TRUNK: ["ada", "cyd"]},
}
"""cyd has a part in the second expert from round 1 on, in the third from round 3 on, and never in the first."""


def made(path: Path, mode: str = "federated") -> RunFolder:
    """Returns a run of three rounds; in the model of round n every weight is n."""
    recipe = Recipe.model_validate({"name": "r", "model": SHAPE})
    folder = RunFolder.create(path, recipe)
    model = build_model(recipe.model, load_tokenizer("byte").padded_vocab_size, recipe.seed, 256)
    layout = BlockLayout.of(dict(model.named_parameters()))
    recorder = RunRecorder(folder, layout, keep_last=3)
    recorder.record("run_started", run_id="x", mode=mode, num_rounds=3, versions={}, resumed_from=None)
    for name in ("ada", "bob", "cyd"):
        recorder.record("node_joined", node=name, train_tokens=1, held_out_tokens=1, files={})
    for number, accepted in ACCEPTED.items():
        verdicts = [
            {"block": block, "outcome": "majority", "accepted": names, "outvoted": [], "missing": [], "invalid": []}
            for block, names in accepted.items()
        ]
        recorder.record("round_planned", round=number, epoch=1, base_digest="")
        recorder.record("verdicts", round=number, verdicts=verdicts)
        blocks = {name: torch.full_like(values, number) for name, values in layout.zeros().items()}
        recorder.commit(number, blocks, {}, {"digest": blocks_digest(blocks), "summary": {"seconds": 1.0}})
    return folder


def imported(folder: RunFolder, value: float = 0.5) -> RunFolder:
    model = build_model(folder.recipe.model, load_tokenizer("byte").padded_vocab_size, 0, 256)
    weights = {name: torch.full_like(one.detach(), value) for name, one in model.named_parameters()}
    save_file(weights, folder.imported_path)
    return folder


def test_experts_go_back_to_before_the_node(tmp_path: Path) -> None:
    folder = imported(made(tmp_path))
    plan = plan_departure(folder, 3, "cyd")
    assert plan.versions == {SECOND: 0, THIRD: 2} and plan.untouched == [FIRST] and plan.trunk_rounds == 2
    assert plan.told == [
        "2 experts of 3 had learnt from cyd and went back to versions from before: "
        "1 to the imported model, 1 to round 2",
        "what remains of cyd: the trunk (attention, routers, embedding), in which its updates counted in 2 rounds, and "
        "what other nodes' experts learnt beside that trunk; what can be read out of these is not removed",
    ]
    weights = dict(model_without(folder, plan)[0].named_parameters())
    down = weights["layers.0.experts.w_down_EDF"]
    assert [float(down[e].unique()) for e in range(3)] == [3.0, 0.5, 2.0]
    assert float(weights["layers.0.router.weight"].unique()) == float(weights["embedding.weight"].unique()) == 3.0
    earlier = plan_departure(folder, 2, "cyd")
    assert earlier.versions == {SECOND: 0} and earlier.trunk_rounds == 1


def test_what_no_kept_model_allows_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with pytest.raises(RunFolderError) as error:
        plan_departure(folder, 3, "cyd")
    assert str(error.value) == (
        "--without cyd: 1 expert learnt from it from round 1 on, and no model of an earlier round is kept (kept: 1, 2, "
        "3); train again without cyd, and begin with an imported model, to which such experts can always go back"
    )
    with pytest.raises(ConfigError, match=r"--without eve: the nodes of .* are ada, bob, cyd"):
        plan_departure(folder, 3, "eve")
    with pytest.raises(ConfigError, match="is a run of one machine"):
        plan_departure(made(tmp_path, "local"), 3, "cyd")
