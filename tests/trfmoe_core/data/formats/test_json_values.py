import io
import json

import pytest

from trfmoe_core.data.formats import json_values
from trfmoe_core.data.formats.json_values import values

OBJECTS = [{"text": f"text {number}", "inner": {"text": "no document", "n": [number]}} for number in range(40)]


def read(text: str) -> tuple[list[object], list[str]]:
    found = list(values(io.StringIO(text, newline="\n")))
    return [value.value for value in found if not value.reason], [f"{v.place}: {v.reason}" for v in found if v.reason]


@pytest.mark.parametrize("head", [1 << 20, 50])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, OBJECTS)),
        "\ufeff\n\n" + "\r\n".join(map(json.dumps, OBJECTS)) + "\n",
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        json.dumps(OBJECTS, indent="\t").replace("\n", "\r\n"),
        "\n".join(json.dumps(one, indent=4) for one in OBJECTS),
        ",\n".join(json.dumps(one, indent=1) for one in OBJECTS),
        "\n\n" + json.dumps(OBJECTS[:20]) + "\n" + json.dumps(OBJECTS[20:]),
        "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    ],
)
def test_objects_are_found_in_every_layout(text: str, head: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "_HEAD_CHARACTERS", head)
    assert read(text) == (OBJECTS, [])


def test_a_broken_value_costs_no_other() -> None:
    lines = [json.dumps(one) for one in OBJECTS[:5]]
    good = [*OBJECTS[:2], *OBJECTS[3:5]]
    found, problems = read("\n".join([*lines[:2], "{broken", *lines[3:]]))
    assert (found, [problem.split(" (")[0] for problem in problems]) == (good, ["line 3: no JSON"])
    for text in (json.dumps(OBJECTS[:5], indent=2), "\n".join(json.dumps(one, indent=2) for one in OBJECTS[:5])):
        found, problems = read(text.replace('"text 2"', "text 2"))
        assert found == good
        assert [problem.split(" (")[0] for problem in problems] == ["item 3: no JSON"]
    found, problems = read(json.dumps(OBJECTS[:5]).replace('"text 2"', "text 2"))
    assert found == OBJECTS[:2]
    assert problems[0].endswith("what follows it is left out")
    found, problems = read("[" * 200_000 + '\n{"text": "good"}\n')
    assert (found, len(problems)) == ([{"text": "good"}], 1)


def test_a_value_too_long_for_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MAX_CHARACTERS", 1000)
    monkeypatch.setattr(json_values, "_HEAD_CHARACTERS", 100)
    long = {"text": "x" * 9000}
    assert read(json.dumps([OBJECTS[0], long, OBJECTS[1]], indent=1))[0] == [OBJECTS[0], OBJECTS[1]]
