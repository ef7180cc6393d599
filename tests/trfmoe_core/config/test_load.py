"""Recipes: every problem at once, with file, key, value and remedy."""

from pathlib import Path

import pytest
import yaml

from tests.places import ROOT
from trfmoe_core.config import (
    ModelConfig,
    NodeSettings,
    Recipe,
    apply_overrides,
    load_node_file,
    load_recipe,
    recipe_hash,
)
from trfmoe_core.config.load import MAX_BYTES, validate
from trfmoe_core.config.problems import PATTERNS
from trfmoe_core.errors import ConfigError
from trfmoe_core.places import tokenizer_place


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(folder, text), list(overrides))
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.federation_size >= 3 or recipe.data.sources


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    lines = problems(tmp_path, "model: {widht: 64, layers: four}\nrounds: {num_rounds: 0}\nouter: {momentum: 2}\n")
    assert len(lines) == 4
    text = "\n".join(lines)
    assert "model.widht: unknown key; did you mean 'width'?" in text
    assert "model.layers: 'four'" in text
    assert "rounds.num_rounds: 0 is not allowed; give 1 or more" in text
    assert "outer.momentum: 2 is not allowed" in text
    assert all(str(tmp_path / "recipe.yaml") in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {width: 100, heads: 3}", "model.heads: 3 does not divide width 100"),
        ("model: {heads: 4, kv_heads: 3}", "kv_heads: 3 does not divide heads 4"),
        ("model: {experts: 4, top_k: 5}", "top_k: 5 is above experts 4"),
        ("model: {width: 12, heads: 4}", "odd"),
        ("num_nodes: 0", "num_nodes: 0 is not allowed"),
        ("nodes: [{name: a, data: [x]}, {name: a, data: [x]}, {name: b, data: [x]}]", "'a'"),
        ("nodes: [{name: a, dta: [x], data: [x]}]", "nodes.0.dta: unknown key; did you mean 'data'?"),
        ("training: {learning_rate: .nan}", "learning_rate"),
        ("training: {learning_rate: 1.0e-5, min_learning_rate: 1.0e-4}", "min_learning_rate: 0.0001 is above"),
        ("witness: {}", "witness.data"),
        ("witness: {data: []}", "witness.data"),
        ("witness: {data: [x], min_t: -1.0}", "witness.min_t: -1.0 is not allowed"),
        ("witness: {data: [x], salt: short}", "witness.salt: 'short' is not allowed"),
        ("witness: {data: [x], widows: 3}", "witness.widows: unknown key; did you mean 'windows'?"),
        ("- a list", "a recipe is a mapping of keys to values, this is a list"),
        ("just words", "a recipe is a mapping of keys to values, this is a single value"),
        ("# nothing", "is empty; give a recipe"),
        ("{nodes: [{name: a, data: [x]}], data: [y]}", "data.sources: it is the text of a run on one machine"),
        ("model: {layers: 2}\nseed: 1\nmodel: {width: 64}", "the key 'model' is given twice (lines 1 and 3)"),
        ("training:\n  steps: 3\n  steps: 4", "the key 'steps' is given twice (lines 2 and 3)"),
        ("log: {wandb: on}", "log.wandb: 'on' is not allowed; choose 'off', 'offline' or 'online'"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, message: str) -> None:
    assert message in "\n".join(problems(tmp_path, text))


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"did you mean .*demo\.yaml"):
        load_recipe(tmp_path / "demmo.yaml")


def test_overrides_are_yaml_and_reach_into_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "nodes: [{name: a, data: [x]}, {name: b, data: [x]}, {name: c, data: [x]}]")
    recipe = load_recipe(path, ["model.layers=2", "nodes.1.name=clinic", "nodes.2.drill={factor: -3.0}", "vote=mean"])
    assert (recipe.model.layers, recipe.nodes[1].name, recipe.vote) == (2, "clinic", "mean")
    assert recipe.nodes[2].drill is not None
    assert load_recipe(path, ["training.learning_rate=3e-4"]).training.learning_rate == 3e-4
    for wrong in ("model.layers", "nodes.9.name=x", "=3"):
        with pytest.raises(ConfigError, match="--set"):
            load_recipe(path, [wrong])
    with pytest.raises(ConfigError, match=r"model\.layerz: unknown key; did you mean 'layers'"):
        load_recipe(path, ["model.layerz=2"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.layers=four"], "--set model.layers=four: model.layers: 'four' is not allowed; give a whole number"),
        (["rounds.num_rounds=0"], "--set rounds.num_rounds=0: rounds.num_rounds: 0 is not allowed; give 1 or more"),
        (["model=3"], "--set model=3: model: 3 is no section"),
        (["model.heads=3"], "--set model.heads=3: model.heads: 3 does not divide width 100"),
        (["model.width=101", "seed=1"], "r.yaml with --set model.width=101: model.heads: 2 does not divide"),
        (["nodes.0.name=x y"], "--set nodes.0.name=x y: nodes.0.name: 'x y' is not allowed; give letters, digits"),
        (["nodes.0.name=b"], "--set nodes.0.name=b: nodes: the names ['b'] are used twice"),
        (["training.device=gpu"], "training.device: 'gpu' is not allowed; give auto, cpu, cuda, or one CUDA device"),
        (["num_nodes=5", "seed=1"], "--set num_nodes=5: num_nodes: 5, but nodes lists 2"),
        (
            ["training.devices=many"],
            "--set training.devices=many: training.devices: 'many' is not allowed; give a whole",
        ),
        (["seed=true"], "--set seed=true: seed: true is not allowed; give a whole number"),
        (["seed=0.5"], "--set seed=0.5: seed: 0.5 is not allowed; give a whole number"),
    ],
)
def test_a_bad_override_is_named_and_not_the_file(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: {width: 100, heads: 2}\nnodes: [{name: a, data: [x]}, {name: b, data: [x]}]\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_file_says_wrong_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {layers: 0, width: 128}")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, ["model.width=64", "seed=-1"])
    assert str(caught.value).splitlines() == [
        "--set seed=-1: seed: -1 is not allowed; give 0 or more",
        f"{path}: model.layers: 0 is not allowed; give 1 or more",
    ]


def test_whole_numbers_may_be_written_with_exponent_and_underscores(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "training: {steps: 1e3, batch_size: 1_0, devices: 2.0}"), ["seed=1_000"])
    assert (recipe.training.steps, recipe.training.batch_size, recipe.training.devices) == (1000, 10, 2)
    assert recipe.seed == 1000
    with pytest.raises(ConfigError, match=r"training\.steps: 1000\.5 is not allowed; give a whole number"):
        load_recipe(write(tmp_path, "training: {steps: 1000.5}"))


def test_every_pattern_of_a_setting_is_told_in_words() -> None:
    def patterns(schema: object) -> set[str]:
        if isinstance(schema, dict):
            own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
            return own.union(*map(patterns, schema.values()))
        return set().union(*map(patterns, schema)) if isinstance(schema, list) else set()

    found = patterns(Recipe.model_json_schema()) | patterns(NodeSettings.model_json_schema())
    assert found <= set(PATTERNS) and len(found) >= 3


def test_a_suffix_makes_no_two_names_similar(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "bin.yaml")
    assert "did you mean" not in str(caught.value)


def test_overrides_leave_the_original_alone() -> None:
    raw = {"model": {"layers": 1}}
    assert apply_overrides(raw, ["model.layers=2"])["model"]["layers"] == 2
    assert raw["model"]["layers"] == 1


def test_the_hash_follows_the_contents() -> None:
    assert recipe_hash(Recipe()) == recipe_hash(Recipe(model=ModelConfig()))
    assert recipe_hash(Recipe()) != recipe_hash(Recipe(seed=1))


def test_nodes_learn_nothing_about_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, "nodes: [{name: a, data: [x]}, {name: b, data: [y]}, {name: c, data: [z]}]")
    sent = load_recipe(path, ["data.tokenizer=./words/bpe"]).resolved(tmp_path).for_nodes()
    assert sent.nodes == []
    assert sent.data.tokenizer == "./bpe"
    assert sent.federation_size == 3
    assert str(tmp_path) not in sent.model_dump_json()
    assert Recipe.model_validate(sent.model_dump(mode="json")) == sent


def test_the_trunk_is_voted_on_as_the_experts_are_but_never_by_median_unless_asked() -> None:
    asked = [("majority", None), ("mean", None), ("median", None), ("median", "median"), ("majority", "mean")]
    rules = [Recipe(vote=vote, vote_trunk=trunk).rule_of_trunk for vote, trunk in asked]
    assert rules == ["majority", "mean", "majority", "median", "mean"]


def test_the_witness_is_the_coordinators_own(tmp_path: Path) -> None:
    path = write(tmp_path, "witness: {data: [public/a.txt, /public/b]}")
    recipe = load_recipe(path, ["witness.windows=4"]).resolved(tmp_path)
    assert recipe.witness is not None
    assert recipe.witness.data == [str(tmp_path / "public" / "a.txt"), "/public/b"]
    assert (recipe.witness.windows, Recipe().witness) == (4, None)
    assert recipe.for_nodes().witness is None
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_node_file_stands_on_its_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("name: clinic\ndata: [pdfs]\nstate_dir: state\n")
    settings = load_node_file(path)
    assert settings.data == [str(tmp_path / "pdfs")]
    assert settings.state_dir == str(tmp_path / "state")
    path.write_text("name: a b\ndata: []\n")
    with pytest.raises(ConfigError) as caught:
        load_node_file(path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_resolved_recipe_of_four_nodes_can_be_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "nodes: [" + ", ".join(f"{{name: {name}, data: [x]}}" for name in "abcd") + "]")
    resolved = load_recipe(path).resolved(tmp_path)
    assert resolved.federation_size == 4
    assert load_recipe(write(tmp_path, yaml.safe_dump(resolved.model_dump(mode="json")))) == resolved


def test_an_owners_limits_name_entries_of_its_data(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text('name: n\ndata: [a, b]\nlimits: {data_sets: {r: [b]}, hours: "20:00-06:00", experts: 4}\n')
    settings = load_node_file(file)
    assert settings.data == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert settings.limits.data_sets == {"r": [str(tmp_path / "b")]}
    file.write_text("name: n\ndata: [a]\nlimits: {data_sets: {r: [c]}}\n")
    with pytest.raises(ConfigError, match=r"limits\.data_sets\.r"):
        load_node_file(file)
    file.write_text('name: n\ndata: [a]\nlimits: {hours: "8-17"}\n')
    with pytest.raises(ConfigError, match=r"limits\.hours"):
        load_node_file(file)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("byte", "byte"),
        ("gpt2", "gpt2"),
        ("microsoft/DialoGPT-small", "microsoft/DialoGPT-small"),
        ("own/bpe", "{base}/own/bpe"),
        ("./gpt2", "{base}/gpt2"),
        ("a/b/c", "{base}/a/b/c"),
        ("/abs/bpe", "/abs/bpe"),
    ],
)
def test_a_tokenizer_is_a_folder_where_there_is_one_or_else_a_name_on_the_hub(
    tmp_path: Path, given: str, expected: str
) -> None:
    (tmp_path / "own" / "bpe").mkdir(parents=True)
    assert tokenizer_place(given, lambda path: str((tmp_path / path).resolve())) == expected.format(base=tmp_path)


def test_whole_pieces_want_a_mask_between_them(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {packing: best_fit}")
    with pytest.raises(ConfigError, match=r"data\.packing: best_fit .*model\.document_mask=true"):
        load_recipe(path)
    assert load_recipe(path, ["model.document_mask=true"]).data.packing == "best_fit"


def test_a_file_without_an_end_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="has more than 4 MiB"):
        load_recipe(tmp_path / "big.yaml")


def test_an_entry_that_is_no_text_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("name: a\ndata: [1e3, {path: 1}]\n")
    with pytest.raises(ConfigError) as told:
        load_node_file(tmp_path / "node.yaml")
    assert str(told.value).count("\n") == 1
    assert "data.0: 1000.0 is no text to YAML; put it in quotes" in str(told.value)


def test_a_loop_of_links_is_told_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "node.yaml").write_text("name: a\ndata: [loop, '~$notes.txt', '~nobody-by-this-name/x']\n")
    settings = load_node_file(tmp_path / "node.yaml")
    assert settings.data == [str(tmp_path / name) for name in ("loop", "~$notes.txt", "~nobody-by-this-name/x")]


def test_many_or_long_unknown_keys_give_a_short_message() -> None:
    raw = {"model": {f"k{number}": 1 for number in range(5000)}, "data": {"k" * 1_000_000: "v" * 1_000_000}}
    with pytest.raises(ConfigError) as error:
        validate(Recipe, raw, "recipe.yaml")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("recipe.yaml: model.k0: unknown key; ")
    assert lines[-1] == "recipe.yaml: and 4961 more problems; mend these first"
    assert len(lines) == 41
    with pytest.raises(ConfigError) as error:
        validate(Recipe, {"data": raw["data"]}, "recipe.yaml")
    assert len(str(error.value)) < 600
