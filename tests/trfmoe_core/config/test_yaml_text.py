"""A string that is written is read as the same string; a number may have an exponent."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.config.yaml_text import dump_yaml, load_yaml, quoted

READ_OTHERWISE = (
    *("1", "no", "on", "off", "y", "n", "yes", "true", "007", "0o7", "0x10", "0b1", "null", "Null", "~", "", "=", "<<"),
    *(
        "1e3",
        "1E5",
        "+1e5",
        ".5e3",
        "1.e3",
        "1_0e3",
        "1e-3",
        "1.5",
        ".inf",
        "-.INF",
        ".nan",
        "1_000",
        "1:30",
        "1:30:00.5",
    ),
    *(
        "2026-01-01",
        "2026-01-01T00:00:00Z",
        "2026-02-31",
        "-",
        "?",
        ":",
        "a: b",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
    ),
    *(
        "%a",
        "@a",
        "`a",
        "'",
        '"',
        "\\",
        "[a]",
        "{a: b}",
        " a ",
        "a\nb",
        "\u2028",
        "\x85",
        "\ufeff",
        "\U0001f600",
        "\udcff",
    ),
)


@pytest.mark.parametrize("text", READ_OTHERWISE)
def test_text_that_yaml_reads_otherwise(text: str) -> None:
    assert load_yaml(quoted(text)) == text
    assert load_yaml(f"name: {quoted(text)}    # a comment\nzone: {quoted(None)}\n") == {"name": text, "zone": None}
    assert load_yaml(dump_yaml({text: [text, {"a": text}]})) == {text: [text, {"a": text}]}


@settings(max_examples=50)
@given(st.text())
def test_any_text(text: str) -> None:
    assert load_yaml(quoted(text)) == text
    assert load_yaml(dump_yaml([text])) == [text]


@given(st.text(alphabet="0123456789eE+-._:xobnafif~", max_size=8))
def test_any_text_that_may_be_a_number(text: str) -> None:
    assert load_yaml(dump_yaml([text])) == [text]
    assert load_yaml(quoted(text)) == text


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1E5", 1e5), ("+2e2", 200.0), (".5e1", 5.0), ("3.e2", 300.0)]
)
def test_a_number_with_an_exponent_is_a_number(text: str, value: float) -> None:
    assert load_yaml(text) == value
    assert load_yaml(f"[{text}]") == [value]
    assert load_yaml(f"'{text}'") == text


@pytest.mark.parametrize("text", ["2026-02-31", "[1,", "a: b: c", "[" * 400, "!!python/object:os.system x"])
def test_what_is_no_yaml_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)


def test_yes_no_on_and_off_are_words() -> None:
    assert load_yaml("[yes, No, on, OFF, true, False]") == ["yes", "No", "on", "OFF", True, False]


def test_a_section_reads_words_and_booleans_as_they_are_meant() -> None:
    for word in ("off", "no", "false"):
        meant = load_yaml(f"data: {{deduplicate: {word}, offline: Yes}}\nlog: {{wandb: {word}}}")
        recipe = Recipe.model_validate(meant)
        assert (recipe.data.deduplicate, recipe.data.offline, recipe.log.wandb) == (False, True, "off")
    names = load_yaml("nodes: [{name: no, zone: on, data: [off]}]")["nodes"]
    node = NodeSettings.model_validate(names[0])
    assert (node.name, node.zone, node.data) == ("no", "on", ["off"])


@pytest.mark.parametrize("text", ["Grüße", "日本語", "naïve — ok"])
def test_letters_stay_as_they_are(text: str) -> None:
    assert text in dump_yaml({"data": [text]})
    assert load_yaml(dump_yaml({text: text})) == {text: text}
