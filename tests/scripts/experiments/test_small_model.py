"""The sides of the studies: every one is a recipe that can run, with a name of its own."""

from pathlib import Path

from scripts.experiments.sides import DealtText
from scripts.experiments.small_model import RECIPE, federation, shared_momentum
from scripts.experiments.studies.as_one import SCHEDULES, AsOneStudy
from trfmoe_core.config import check_federated


def test_rows_with_a_schedule_or_shared_momentum_make_as_many_steps(tmp_path: Path) -> None:
    sides = [shared_momentum(federation("muon", 25), 2), *(federation("muon", schedule) for schedule in SCHEDULES)]
    recipes = [side.recipe(RECIPE, 8e-3) for side in sides]
    assert [recipe.total_steps for recipe in recipes] == [500] * 3
    assert [recipe.rounds.num_rounds for recipe in recipes] == [20, 20, 42]
    assert recipes[0].rounds.momentum_every == 2
    assert sides[2].name == "3 nodes, H 5, 10 from round 21 on, 25 from round 31 on, muon"
    for recipe in recipes:
        check_federated(recipe)


def test_every_row_of_the_full_study_has_a_name_of_its_own(tmp_path: Path) -> None:
    study = AsOneStudy(
        base=RECIPE, text=DealtText(tmp_path, ("a",)), answers=tmp_path, full=True, steps=500
    )  # nothing is trained
    names = [row.side.name for row in study.tuned()]
    assert len(set(names)) == len(names)
