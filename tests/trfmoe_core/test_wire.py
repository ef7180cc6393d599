"""The wire: exact round trips, and nothing but `WireError` for what is wrong."""

import hashlib
import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trfmoe_core.blocks import BlockLayout
from trfmoe_core.errors import WireError
from trfmoe_core.quantize import LEVELS, Quantized
from trfmoe_core.wire import DTYPES, Parcel, decode, encode, encoded_size, map_values, views

PARAMETERS = {
    "embedding.weight": torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
    "layers.0.experts.w_gate_up_EGD": torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1)),
    "layers.0.experts.w_down_EDF": torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(2)),
}
LAYOUT = BlockLayout.of(PARAMETERS)
BLOCKS = LAYOUT.gather(PARAMETERS)
GOOD = encode(BLOCKS, LAYOUT, "float32", 200)
BOTH = ["float32", "bfloat16"]


@pytest.mark.parametrize("limit", [1, 100, 200, 10**6])
def test_float32_comes_back_exactly(limit: int) -> None:
    decoded = decode(encode(BLOCKS, LAYOUT, "float32", limit), LAYOUT, LAYOUT.names, BOTH)
    assert all(torch.equal(decoded[name], BLOCKS[name]) for name in LAYOUT.names)


def test_bfloat16_comes_back_rounded_once() -> None:
    parcel = encode(BLOCKS, LAYOUT, "bfloat16", 10**6)
    decoded = decode(parcel, LAYOUT, LAYOUT.names, BOTH)
    assert all(torch.equal(decoded[name], BLOCKS[name].bfloat16().float()) for name in LAYOUT.names)
    assert sum(len(buffer) for buffer in parcel.buffers) == 2 * sum(flat.numel() for flat in BLOCKS.values())


@pytest.mark.parametrize(("dtype", "levels"), LEVELS.items())
def test_rounded_blocks_come_back_within_half_a_level_and_in_few_bytes(dtype: str, levels: int) -> None:
    told: dict[str, torch.Tensor] = {}
    parcel = encode(BLOCKS, LAYOUT, dtype, 10**6, told.__setitem__)
    decoded = decode(parcel, LAYOUT, LAYOUT.names, [dtype])
    for name, values in BLOCKS.items():
        assert torch.equal(decoded[name], told[name])
        assert float((decoded[name] - values).abs().max()) <= float(values.abs().max()) / levels / 2 * 1.001
    numel, rows = sum(flat.numel() for flat in BLOCKS.values()), 6 + 2 * (4 + 4)
    size = 4 * rows + (numel if dtype == "int8" else numel // 2)
    assert sum(len(buffer) for buffer in parcel.buffers) == size
    assert sum(encoded_size(spec, dtype) for spec in LAYOUT.specs.values()) == size


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_buffer_is_written_once_to_where_it_travels(dtype: str) -> None:
    parameters = {"weight": torch.ones(1 << 10, 1 << 12)}
    layout = BlockLayout.of(parameters)
    blocks = layout.gather(parameters)
    tracemalloc.start()
    parcel = encode(blocks, layout, dtype, 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(buffer) for buffer in parcel.buffers] == [bytes], "Flower takes nothing else"
    assert peak < 1.1 * parcel.num_bytes


@pytest.mark.parametrize("dtype", LEVELS)
def test_rounded_blocks_are_read_piece_by_piece_where_they_lie(dtype: str) -> None:
    parcel = encode(BLOCKS, LAYOUT, dtype, 10**6)
    for name, view in views(parcel, LAYOUT, LAYOUT.names, [dtype]).items():
        assert isinstance(view, Quantized)
        assert torch.equal(view[3:9], view.dense()[3:9])
        assert view.numel() == BLOCKS[name].numel()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_int8_scale_that_is_no_length_is_refused(value: float) -> None:
    part = {"trunk": BLOCKS["trunk"]}
    parcel = encode(part, LAYOUT, "int8", 10**6)
    data = struct.pack("<f", value) + parcel.buffers[0][4:]
    tree = json.loads(parcel.index)
    tree["entries"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    with pytest.raises(WireError, match="scale"):
        decode(Parcel(json.dumps(tree), (data,)), LAYOUT, LAYOUT.names, ["int8"])


@pytest.mark.parametrize("dtype", LEVELS)
def test_map_values_works_on_rounded_blocks(dtype: str) -> None:
    parcel = map_values(encode(BLOCKS, LAYOUT, dtype, 10**6), lambda values: -values)
    expected = decode(encode(BLOCKS, LAYOUT, dtype, 10**6), LAYOUT, LAYOUT.names, [dtype])
    decoded = decode(parcel, LAYOUT, LAYOUT.names, [dtype])
    assert all(torch.equal(decoded[name], -expected[name]) for name in LAYOUT.names)


def test_part_of_the_blocks_is_no_error() -> None:
    part = {"layers.0.experts.1": BLOCKS["layers.0.experts.1"]}
    assert list(decode(encode(part, LAYOUT, "float32", 1000), LAYOUT, LAYOUT.names, BOTH)) == list(part)


def test_map_values_keeps_the_digests_right() -> None:
    decoded = decode(map_values(GOOD, lambda values: -10 * values), LAYOUT, LAYOUT.names, BOTH)
    assert all(torch.equal(decoded[name], -10 * BLOCKS[name]) for name in LAYOUT.names)


def edited(change: Callable[[dict[str, Any]], object]) -> Parcel:
    tree = json.loads(GOOD.index)
    change(tree)
    return Parcel(json.dumps(tree), GOOD.buffers)


VIOLATIONS = {
    "unknown block": edited(lambda t: t["entries"][0].update(block="layers.9.experts.0")),
    "twice": edited(lambda t: t["entries"].append(t["entries"][0])),
    "shape": edited(lambda t: t["entries"][0]["tensors"][0][1].reverse() or t["entries"][0]["tensors"].pop()),
    "dtype": edited(lambda t: t["entries"][0].update(dtype="float64")),
    "other dtype": edited(lambda t: t["entries"][0].update(dtype="bfloat16")),
    "size": edited(lambda t: t["entries"][0].update(size=4)),
    "huge offset": edited(lambda t: t["entries"][0].update(offset=2**62)),
    "negative offset": edited(lambda t: t["entries"][0].update(offset=-1)),
    "bool as number": edited(lambda t: t["entries"][0].update(buffer=False)),
    "buffer": edited(lambda t: t["entries"][0].update(buffer=7)),
    "digest": edited(lambda t: t["entries"][0].update(sha256="0" * 64)),
    "extra key": edited(lambda t: t["entries"][0].update(pickle="x")),
    "version": edited(lambda t: t.update(version=99)),
    "entries not a list": edited(lambda t: t.update(entries={})),
    "no json": Parcel("{", GOOD.buffers),
    "deep json": Parcel("[" * 900, GOOD.buffers),
    "long index": Parcel(" " * 10**6 + GOOD.index, GOOD.buffers),
    "no buffers": Parcel(GOOD.index, ()),
    "short buffer": Parcel(GOOD.index, (GOOD.buffers[0][:-1], *GOOD.buffers[1:])),
    "long buffer": Parcel(GOOD.index, (GOOD.buffers[0] + b"x", *GOOD.buffers[1:])),
    "extra buffer": Parcel(GOOD.index, (*GOOD.buffers, b"x")),
    "flipped bit": Parcel(GOOD.index, (bytes([GOOD.buffers[0][0] ^ 1]) + GOOD.buffers[0][1:], *GOOD.buffers[1:])),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violations_are_refused(name: str) -> None:
    with pytest.raises(WireError):
        decode(VIOLATIONS[name], LAYOUT, LAYOUT.names, ["float32"])


def test_a_block_that_is_not_held_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="held by another node"):
        decode(GOOD, LAYOUT, ["trunk"], BOTH)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=3))
def test_random_bytes_never_raise_anything_else(index: bytes, buffers: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(Parcel(index.decode("latin-1"), tuple(buffers)), LAYOUT, LAYOUT.names, BOTH)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["float32", "int8", "int4"]), st.floats(0, 1, exclude_max=True), st.characters(codec="ascii"))
def test_one_changed_character_is_refused_or_means_the_same(dtype: str, where: float, character: str) -> None:
    good = encode(BLOCKS, LAYOUT, dtype, 200)
    expected = decode(good, LAYOUT, LAYOUT.names, [dtype])
    place = int(where * len(good.index))
    index = good.index[:place] + character + good.index[place + 1 :]
    try:
        decoded = decode(Parcel(index, good.buffers), LAYOUT, LAYOUT.names, [dtype])
    except WireError:
        return
    assert all(torch.equal(decoded[name], expected[name]) for name in decoded)
