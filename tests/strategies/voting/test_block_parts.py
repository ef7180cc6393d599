"""The parts of the trunk: every value in exactly one, by the kind of its tensor."""

from collections.abc import Callable

import torch

from strategies.voting.block_parts import parts_of
from trfmoe_core.blocks import TRUNK, BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.model.transformer import parameter_shapes


def test_every_value_of_the_trunk_is_in_one_part_of_its_kind(tiny_recipe: Callable[..., Recipe]) -> None:
    config = tiny_recipe().model.model_copy(update={"attention": "normed", "shared_width": 16})
    layout = BlockLayout.of(parameter_shapes(config, 264))
    spec = layout.specs[TRUNK]
    parts = parts_of(layout)
    assert list(parts) == [TRUNK]
    part_of = torch.full((spec.numel,), -1)
    for number, part in enumerate(parts[TRUNK]):
        for where in part:
            assert bool((part_of[where] == -1).all())
            part_of[where] = number
    assert int(part_of.min()) == 0
    kinds: dict[int, set[str]] = {}
    for slot in spec.slots:
        kinds.setdefault(int(part_of[slot.offset]), set()).add(slot.tensor)
    norms = {slot.tensor for slot in spec.slots if "norm" in slot.tensor}
    assert norms in kinds.values()
    assert {"embedding.weight"} in kinds.values() and {"head.weight"} in kinds.values()
    assert kinds[int(part_of[spec.slots[-1].offset])] == norms, "the last tensor is the last norm"
    routers = {slot.tensor for slot in spec.slots if "router" in slot.tensor}
    assert routers in kinds.values()
