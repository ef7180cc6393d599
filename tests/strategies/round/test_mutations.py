"""Replies of random bytes and random mutations of a valid one, on the way that every reply takes: each is dropped.

Through Flower's serialisation, the boundary, the checks and the spill; what is dropped leaves no trace.
"""

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from strategies.exchange.boundary import LONGEST_REASON, boundary
from strategies.exchange.messages import Description, pack, pack_buffers, read_header
from strategies.exchange.size_limits import DESCRIPTION as HEADER_ROOM
from strategies.round.replies import check_reply
from tests.strategies.round.receiver import LAYOUT, PARCELS, RECIPES, REQUEST, Receiver, message_of, reply_of
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Parcel

TRIALS = [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 10**400, -0.0, 1e-320, 1e308, float("inf"), float("nan"), "", "ada",
    "NaN", "\x00", "\ud800", "𝔘" * 50, "x" * 5000, [], [[]], [0] * 300, {}, {"a": {"b": []}},
    [[["embedding.weight", [3, 2]]]],
]  # fmt: skip
PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    "\\",
    "\\ud800",
    "\\u0000",
    "NaN",
    "Infinity",
    "1e999",
    "-0",
    "null",
    "9" * 5000,
]
Draw = random.Random
Content = dict[str, Any]


def valid(parcel: Parcel) -> Content:
    return {"header": json.loads(reply_of(parcel).model_dump_json()), "buffers": list(parcel.buffers)}


def mutate_tree(draw: Draw, tree: Any) -> Any:
    """Changes one place of a JSON value: another value, a key less, a key more, one twice, a deep nest."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []:
            places.append((value, key))
            walk(value[key])

    walk(tree)
    if not places:
        return copy.deepcopy(draw.choice(ODD))
    holder, key = draw.choice(places)
    kind = draw.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(["extra", "", "block", "json"])] = copy.deepcopy(draw.choice(ODD))
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == 3 and isinstance(holder[key], int | float):
        holder[key] += draw.choice([-1, 1, 0.5, 2**40])
    elif kind == 4 and draw.random() < 0.05:
        nest: Any = []
        for _ in range(draw.choice([50, 900])):
            nest = [nest]
        holder[key] = nest
    else:
        holder[key] = copy.deepcopy(draw.choice(ODD))
    return tree


def mutate_text(draw: Draw, text: str) -> str:
    for _ in range(draw.randrange(1, 4)):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice([0, 1, 1, 5, 200]))
        middle = draw.choice([draw.choice(PIECES), draw.randbytes(3).decode("latin-1"), text[start:end] * 2, ""])
        text = text[:start] + middle + text[end:]
    return text


def mutate_bytes(draw: Draw, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
    return draw.choice([bytes(spoilt), data[: draw.randrange(len(data))], data + draw.randbytes(4), b""])


def in_header(draw: Draw, parcel: Parcel) -> RecordDict:
    content = valid(parcel)
    return built(json.dumps(mutate_tree(draw, content["header"])), content["buffers"])


def in_index(draw: Draw, parcel: Parcel) -> RecordDict:
    content = valid(parcel)
    tree = json.loads(parcel.index)
    for _ in range(draw.randrange(1, 3)):
        tree = mutate_tree(draw, tree)
    return built(json.dumps({**content["header"], "index": json.dumps(tree)}), content["buffers"])


def in_header_text(draw: Draw, parcel: Parcel) -> RecordDict:
    return built(mutate_text(draw, reply_of(parcel).model_dump_json()), valid(parcel)["buffers"])


def in_index_text(draw: Draw, parcel: Parcel) -> RecordDict:
    content = valid(parcel)
    return built(json.dumps({**content["header"], "index": mutate_text(draw, parcel.index)}), content["buffers"])


def in_buffers(draw: Draw, parcel: Parcel) -> RecordDict:
    content = valid(parcel)
    number = draw.randrange(len(content["buffers"]))
    content["buffers"][number] = mutate_bytes(draw, content["buffers"][number])
    if draw.random() < 0.3:
        draw.shuffle(content["buffers"])
    return built(json.dumps(content["header"]), content["buffers"])


def in_records(draw: Draw, parcel: Parcel) -> RecordDict:
    record = pack(reply_of(parcel), pack_buffers(parcel))
    strange: list[Any] = [
        ConfigRecord({"json": draw.choice([1, 2.5, b"x", [1, 2], True])}),
        ConfigRecord({"jsn": "x"}),
        MetricRecord({"json": 1.0}),
        ArrayRecord(),
        ArrayRecord({"0": Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=draw.randbytes(8))}),
        ArrayRecord({"1": Array(dtype="uint8", shape=(2,), stype="trfmoe.bytes", data=draw.randbytes(2))}),
    ]
    key = draw.choice(["header", "parcel", "other"])
    if key in record:
        del record[key]
    record[key] = draw.choice(strange)
    if draw.random() < 0.3:
        del record[draw.choice(list(record))]
    return record


def random_bytes(draw: Draw, parcel: Parcel) -> RecordDict:
    text = draw.randbytes(draw.randrange(200)).decode(draw.choice(["latin-1", "utf-16-le"]), errors="replace")
    return built(text, [draw.randbytes(draw.randrange(100)) for _ in range(draw.randrange(3))])


def built(header: str, buffers: list[bytes]) -> RecordDict:
    arrays = {
        str(i): Array(dtype="uint8", shape=(len(data),), stype="trfmoe.bytes", data=data)
        for i, data in enumerate(buffers)
    }
    return RecordDict({"header": ConfigRecord({"json": header}), "parcel": ArrayRecord(arrays)})


KINDS: list[Callable[[Draw, Parcel], RecordDict]] = [
    random_bytes, in_header, in_header, in_index, in_index, in_header_text, in_index_text, in_buffers, in_records,
]  # fmt: skip


@pytest.mark.parametrize("dtype", PARCELS)
def test_the_valid_reply_is_one(dtype: str) -> None:
    parcel = PARCELS[dtype]
    reply = reply_of(parcel)
    checked = check_reply(message_of(pack(reply, pack_buffers(parcel))), REQUEST, "ada", LAYOUT, RECIPES[dtype])
    assert sorted(checked.updates) == sorted(LAYOUT.names)
    content = valid(parcel)
    again = message_of(built(json.dumps(content["header"]), content["buffers"]))
    assert check_reply(again, REQUEST, "ada", LAYOUT, RECIPES[dtype]).reply == reply


DESCRIPTION = Description(
    name="ada",
    zone="north",
    code_fingerprint="a" * 64,
    tokenizer_fingerprint="b" * 64,
    versions={"python": "3.11", "torch": "2.9"},
    device="cpu",
    train_tokens=100,
    files={"ok": 3, "no-text": 1},
    duplicates=2,
    sources=3,
    num_notes=1,
    bases=["c" * 64],
)


@pytest.mark.parametrize("trials", TRIALS)
def test_a_description_is_read_whole_or_refused(trials: int) -> None:
    draw = random.Random(20010911)
    text = DESCRIPTION.model_dump_json()
    refused = 0
    for trial in range(trials):
        mutated = mutate_text(draw, text) if trial % 2 else json.dumps(mutate_tree(draw, json.loads(text)))
        content = RecordDict({"header": ConfigRecord({"json": mutated})})
        try:
            with boundary():
                read = read_header(message_of(content), Description, HEADER_ROOM.header, HEADER_ROOM.values)
        except WireError as error:
            refused += 1
            assert len(str(error)) <= LONGEST_REASON
            assert str(error).isprintable()
        else:
            assert len(read.model_dump_json()) < 10_000
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", read.name)
            assert all(line.isprintable() for line in (read.device, *read.files, *read.versions))
    assert trials * 0.5 < refused < trials


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("dtype", PARCELS)
def test_a_reply_counts_whole_or_leaves_no_trace(dtype: str, trials: int, tmp_path: Path) -> None:
    draw = random.Random(20240229)
    receiver = Receiver(dtype, tmp_path)
    refused = 0
    reasons = set()
    for trial in range(trials):
        kind = KINDS[trial % len(KINDS)]
        try:
            taken = receiver.take(kind(draw, PARCELS[dtype]))
        except Exception as error:
            pytest.fail(f"trial {trial}, {kind.__name__}: {type(error).__name__}: {str(error)[:300]}")
        if isinstance(taken, str):
            refused += 1
            assert taken
            reasons.add(taken[:20])
        else:
            assert all(taken.updates[block].numel() == LAYOUT.specs[block].numel for block in taken.updates)
    assert trials * 0.8 < refused < trials
    assert len(reasons) > 20
