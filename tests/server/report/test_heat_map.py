"""The heat map of expert load shows every layer and expert over the rounds, and where an expert is dead."""

import re

from server.report.heat_map import COLUMNS, DEAD, MOST_CELLS, heat_map
from server.report.sections import expert_load
from server.run_folder.history import RunHistory
from tests.scripts.journal import events
from tests.server.report.test_page import Balance


def test_a_cell_for_every_round_layer_and_expert() -> None:
    load = {1: [[0.5, 0.5], [1.0, 0.0]], 2: [[0.25, 0.75], [0.5, 0.5]]}
    text = heat_map(load, "round")
    parser = Balance()
    parser.feed(text)
    assert parser.open == [] and parser.outside == []
    assert text.count("<rect") == 2 * 2 * 2 * 2, "wide and narrow, two rounds, two layers, two experts"
    assert len(re.findall(f'fill="{DEAD}"><title>round 1, layer 1, expert 1: 0.0 %', text)) == 2
    assert "<title>round 2, layer 0, expert 1: 75.0 %</title>" in text
    assert heat_map({}, "round") == ""


def test_many_rounds_and_experts_stay_a_small_page() -> None:
    row = [1 / 64] * 64
    text = heat_map({number: [row] * 12 for number in range(1, 501)}, "round")
    assert text.count("<rect") <= 2 * MOST_CELLS
    few = heat_map({number: [[0.5, 0.5]] for number in range(1, 501)}, "step")
    assert few.count("<rect") == 2 * sum(COLUMNS.values())
    assert "step 1, layer" in few and "step 500, layer" in few, "the first and the last are always there"


def test_the_section_names_the_dead_and_keeps_the_numbers() -> None:
    history = RunHistory(events())
    for replies in history.replies.values():
        for reply in replies.values():
            reply["expert_share"] = [[1.0, 0.0]]
    text = expert_load(history)
    assert "Dead in round 3, without any token: layers.0.experts.1." in text
    assert "0.0 % dead" in text and "round 1, layer 0" in text
    history.replies[3]["bob"]["expert_share"] = [[0.5, 0.25, 0.25]]
    assert history.expert_share(3) == [[1.0, 0.0]], "a reply of another shape is left out"
