"""Every node gets what it wants and can check it; what several get is encoded and sent once."""

import torch

from strategies.exchange.broadcast import Broadcast
from tests.conftest import TINY
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import ModelConfig, TransportConfig
from trfmoe_core.model.transformer import build_model
from trfmoe_core.wire import Parcel, decode

PARAMETERS = dict(build_model(ModelConfig.model_validate(TINY["model"]), 64, 0).named_parameters())
LAYOUT = BlockLayout.of(PARAMETERS)
BLOCKS = LAYOUT.gather(PARAMETERS)


def arrived(broadcast: Broadcast, node: str, dtype: str = "float32") -> Blocks:
    arrays = broadcast.arrays_of(node, broadcast.arrays)
    parcel = Parcel(broadcast.of(node).index, tuple(arrays[str(number)].data for number in range(len(arrays))))
    return decode(parcel, LAYOUT, LAYOUT.names, [dtype])


def test_all_that_get_the_same_share_everything() -> None:
    broadcast = Broadcast(BLOCKS, LAYOUT, TransportConfig(), dict.fromkeys(("ada", "bob"), LAYOUT.names))
    assert broadcast.of("ada") is broadcast.of("bob")
    assert broadcast.arrays_of("ada", broadcast.arrays) is broadcast.arrays
    assert len(broadcast.arrays) == 1
    assert broadcast.of("ada").base_digest == broadcast.base_digest == blocks_digest(BLOCKS)


def test_a_node_gets_only_what_it_wants_and_shared_blocks_are_encoded_once() -> None:
    experts = LAYOUT.experts
    wanted = {"ada": [*experts[:5], TRUNK], "bob": [*experts[3:], TRUNK], "cyd": [TRUNK]}
    for dtype in ("float32", "bfloat16"):
        broadcast = Broadcast(BLOCKS, LAYOUT, TransportConfig(broadcast=dtype), wanted)
        for node, names in wanted.items():
            got = arrived(broadcast, node, dtype)
            assert set(got) == set(names)
            assert blocks_digest(got) == broadcast.of(node).base_digest
            expected = {name: BLOCKS[name].to(getattr(torch, dtype)).float() for name in names}
            assert all(torch.equal(got[name], expected[name]) for name in names)
        item = 4 if dtype == "float32" else 2
        total = sum(len(array.data) for array in broadcast.arrays.values())
        assert total == item * sum(spec.numel for spec in LAYOUT.specs.values())
    assert broadcast.of("cyd").num_bytes < broadcast.of("ada").num_bytes
    assert broadcast.of("nobody").buffers == ()
