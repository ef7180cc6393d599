"""What a recipe must keep for a federation, and need not for a run on one machine."""

from pathlib import Path

import pytest
import yaml

from trfmoe_core.config import Recipe, check_federated
from trfmoe_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [{name: a, data: [x]}, {name: b, data: [x]}]", "2 given"),
        ("experts: {replication: 4}", "experts.replication: 4: an even number of replicas can split in halves"),
        ("experts: {replication: 1}", "experts.replication: 1: a vote needs at least 3 replicas to outvote one"),
        ("{experts: {replication: 5}, num_nodes: 4}", "num_nodes: 4 expected, but every expert is trained by 5 nodes"),
        ("rounds: {quorum: 4}", "rounds.quorum: 4 of 3 replicas"),
        ("{vote: mean, witness: {data: [x]}}", "vote is mean"),
        ("{vote_trunk: median, witness: {data: [x]}}", "vote_trunk is median"),
        ("experts: {replication: 5}", "num_nodes: 3 expected, but every expert is trained by 5 nodes"),
        ("data: [papers]", "data.sources: it is the text of a run on one machine"),
        ("training: {epochs: 2}", "training.epochs: 2, but the nodes of a federation"),
    ],
)
def test_only_a_federation_needs_it(text: str, message: str) -> None:
    recipe = Recipe.model_validate(yaml.safe_load(text))
    with pytest.raises(ConfigError, match=r"r\.yaml: ") as caught:
        check_federated(recipe, "r.yaml")
    assert message in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    recipe = Recipe.model_validate({"nodes": [{"name": "a", "data": ["x"]}], "rounds": {"quorum": 9}})
    with pytest.raises(ConfigError) as caught:
        check_federated(recipe)
    assert len(str(caught.value).splitlines()) == 2


def test_text_of_one_machine_is_no_business_of_nodes(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"data": {"sources": ["papers", {"path": "more", "partition": "auto"}]}})
    resolved = recipe.resolved(tmp_path)
    assert resolved.data.sources[0] == str(tmp_path / "papers")
    assert Recipe.model_validate(resolved.model_dump(mode="json")) == resolved
    assert str(tmp_path) not in resolved.for_nodes().model_dump_json()
