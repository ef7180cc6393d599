"""Messages made to be large, deep or odd: refused for what they are before they cost memory, files or time."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage

from strategies.exchange.messages import Description, Lap, TrainReply, pack, pack_buffers, read_header
from strategies.exchange.refusals import LARGEST, Refusal
from strategies.exchange.size_limits import answer_limits
from strategies.round.replies import check_reply
from tests.federation import of_kind, run_recipe
from tests.strategies.round.receiver import (
    LAYOUT,
    PARCEL,
    RECIPE,
    REPLY,
    REQUEST,
    Receiver,
    message_of,
)
from tests.strategies.round.test_mutations import built
from trfmoe_core.config import Recipe
from trfmoe_core.errors import WireError

MIB = 1 << 20
HEADER = json.loads(REPLY.model_dump_json())
BUFFERS = list(PARCEL.buffers)


def raw(data: bytes, **changes: Any) -> Array:
    return Array(**{"dtype": "uint8", "shape": (len(data),), "stype": "trfmoe.bytes", "data": data, **changes})


def with_header(text: str) -> RecordDict:
    return built(text, BUFFERS)


def with_field(path: str, value: Any) -> RecordDict:
    header = json.loads(json.dumps(HEADER))
    place = header
    *way, last = path.split(".")
    for key in way:
        place = place[key]
    place[last] = value
    return with_header(json.dumps(header))


def with_text(path: str, text: str) -> RecordDict:
    """Puts JSON as it is written in the place of a field."""
    return with_header(str(with_field(path, "@@")["header"]["json"]).replace('"@@"', text))


def in_index(old: str, new: str) -> RecordDict:
    index = PARCEL.index.replace(old, new, 1)
    assert index != PARCEL.index
    return with_field("index", index)


def beside(name: str, record: Any) -> RecordDict:
    return RecordDict({**pack(REPLY, pack_buffers(PARCEL)), name: record})


def parcel_of(*arrays: Array, names: list[str] | None = None) -> RecordDict:
    keys = names or [str(number) for number in range(len(arrays))]
    return RecordDict({**pack(REPLY), "parcel": ArrayRecord(dict(zip(keys, arrays, strict=True)))})


HONEST = [raw(bytes(data)) for data in BUFFERS]
CASES: dict[str, tuple[Callable[[], RecordDict], str]] = {
    "an empty buffer": (lambda: built(json.dumps(HEADER), [*BUFFERS, b""]), "empty"),
    "2,000 buffers": (lambda: built(json.dumps(HEADER), [bytes([n % 256]) for n in range(2000)]), "objects"),
    "one buffer more than blocks": (lambda: built(json.dumps(HEADER), [*BUFFERS, *[b"x"] * 3]), "buffers"),
    "long inner lists": (lambda: with_field("training.expert_share", [[0.5] * 200_000]), "larger than"),
    "unknown keys": (lambda: with_header(json.dumps({str(n): n for n in range(100_000)})), "larger than"),
    "an unknown key": (lambda: with_field("weight", 1), "weight: Extra inputs"),
    "an unknown key inside": (lambda: with_field("training.weight", 1), "training: weight: Extra inputs"),
    "a long unknown key": (lambda: with_field("k" * 20_000, 1), "kkk"),
    "deep nesting": (lambda: with_text("training.expert_share", "[" * 3000 + "]" * 3000), "TrainReply"),
    "not a number": (lambda: with_text("training.loss", "NaN"), "loss"),
    "infinite": (lambda: with_text("training.loss", "Infinity"), "loss"),
    "too large a float": (lambda: with_text("training.loss", "1e400"), "loss"),
    "a huge integer": (lambda: with_text("training.tokens", "9" * 20_000), "TrainReply"),
    "a float for an integer": (lambda: with_text("training.tokens", "64.0"), "tokens"),
    "true for an integer": (lambda: with_text("round", "true"), "round"),
    "a lone surrogate": (lambda: with_text("drill", '"\\ud800"'), "TrainReply"),
    "a name that is a path": (lambda: with_field("name", "x/../../y"), "name"),
    "a run that is a path": (lambda: with_field("run_id", "../other"), "run_id"),
    "a long name": (lambda: with_field("name", "a" * 65), "name"),
    "a long key of seconds": (lambda: with_field("spent", {"k" * 65: 1.0}), "spent"),
    "index: a huge integer": (lambda: in_index('"offset":0', '"offset":' + "9" * 5000), "index"),
    "index: true": (lambda: in_index('"buffer":0', '"buffer":false'), "wrong type"),
    "index: a float": (lambda: in_index('"offset":0', '"offset":0.0'), "wrong type"),
    "index: a shape of floats": (lambda: in_index("[3,2]", "[3.0,2]"), "shapes differ"),
    "index: version true": (lambda: in_index('"version":1', '"version":true'), "version"),
    "index: a lone surrogate": (lambda: in_index('"trunk"', '"\\ud800"'), "unknown"),
    "index: not a number": (lambda: in_index('"offset":0', '"offset":NaN'), "no number"),
    "index: deep": (lambda: with_field("index", "[" * 2000), "index"),
    "index: many values": (lambda: with_field("index", "[" + "[]," * 300 + "[]]"), "values long"),
    "numpy's own arrays": (lambda: parcel_of(*[raw(bytes(b), stype="numpy.ndarray") for b in BUFFERS]), "not trfmoe"),
    "another dtype": (lambda: parcel_of(*[raw(bytes(b), dtype="float32") for b in BUFFERS]), "type and shape"),
    "another shape": (lambda: parcel_of(*[raw(bytes(b), shape=(1, len(b))) for b in BUFFERS]), "type and shape"),
    "a negative shape": (lambda: parcel_of(*[raw(bytes(b), shape=(-1,)) for b in BUFFERS]), "type and shape"),
    "other names of buffers": (lambda: parcel_of(*HONEST, names=[f"0{n}" for n in range(len(HONEST))]), "missing"),
    "a metric for the header": (lambda: beside("header", MetricRecord({"json": 1.0})), "no TrainReply header"),
    "a header of bytes": (lambda: beside("header", ConfigRecord({"json": b"{}"})), "no TrainReply header"),
    "something beside the header": (lambda: beside("header", ConfigRecord({"json": "{}", "x": 1})), "'x' besides"),
    "another record": (lambda: beside("more", ConfigRecord({"x": 1})), "'more' besides"),
    "metrics": (lambda: beside("more", MetricRecord({"x": 1.0})), "'more' besides"),
    "a second parcel": (lambda: beside("more", ArrayRecord({"0": raw(b"xy")})), "'more' besides"),
    "a long list": (lambda: beside("more", ConfigRecord({"x": [0.5] * 10**5})), "larger than"),
    "10,000 arrays": (lambda: parcel_of(*[raw(b"x")] * 10**4), "larger than"),
    "text for a refusal": (lambda: with_field("error", "\x1b[2J\nno\u202e"), "error"),
    "text in a refusal": (lambda: with_field("error", {"code": "internal", "kind": "\x1b[2J"}), "error"),
    "an unknown code": (lambda: with_field("error", {"code": "\x1b[2J"}), "error"),
}


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver("float32", tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_it_is_dropped_with_its_reason(receiver: Receiver, name: str) -> None:
    make, reason = CASES[name]
    taken = receiver.take(make())
    assert isinstance(taken, str)
    assert reason in taken


def test_what_honest_nodes_send_has_room() -> None:
    refusal = Refusal(code="limits-data-sets", asked=LARGEST, granted=LARGEST, count=LARGEST, kind="UnicodeDecodeError")
    drill = "d" * 20 + " x" + "9" * 20
    reply = REPLY.model_copy(update={"error": refusal, "drill": drill, "spent": dict.fromkeys(get_args(Lap), 1 / 3)})
    room = answer_limits(REQUEST, LAYOUT, RECIPE)
    for text in (reply.model_dump_json(), json.dumps(reply.model_dump(mode="json"), indent=1)):
        content = RecordDict({"header": ConfigRecord({"json": text})})
        assert read_header(message_of(content), TrainReply, room.header, room.values).error == refusal


HOSTILE = {
    "inner lists": lambda size: json.dumps({**HEADER, "training": {"expert_share": [[2] * (size // 3)]}}),
    "empty lists": lambda size: '{"round": [' + "[]," * (size // 3) + "[]]}",
    "objects": lambda size: '{"round": [' + "{}," * (size // 3) + "{}]}",
    "unknown keys": lambda size: json.dumps({str(n): 0 for n in range(size // 12)}),
    "keys of seconds": lambda size: json.dumps({**HEADER, "spent": {str(n): "x" for n in range(size // 14)}}),
    "one text": lambda size: json.dumps({**HEADER, "drill": "x" * size}),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("allowed", [False, True])
def test_a_large_header_costs_little_memory_and_time(name: str, allowed: bool) -> None:
    size = 4 * MIB if not allowed else answer_limits(REQUEST, LAYOUT, RECIPE).header * 9 // 10
    text = HOSTILE[name](size)
    message = message_of(built(text, BUFFERS))
    started = time.process_time()
    before = peak(anew=True)
    with pytest.raises(WireError):
        check_reply(message, REQUEST, "ada", LAYOUT, RECIPE)
    assert time.process_time() - started < 1.0
    assert peak() - before < 10 * len(text) + 2 * MIB


def peak(anew: bool = False) -> int:
    """Returns the most bytes that this process has held since it was asked `anew`."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_a_long_key_of_a_description_is_refused_and_does_not_reach_the_journal(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    def tamper(node_id: int, message: FlowerMessage) -> FlowerMessage:
        if node_id == 3 and message.metadata.message_type == MessageType.QUERY:
            told = read_header(message, Description).model_dump(mode="json")
            told["files"] = {"\x1b" + "k" * 5 * MIB: 1}
            message.content["header"] = ConfigRecord({"json": json.dumps(told)})
        return message

    rounds = {"num_rounds": 1, "local_steps": 4, "nodes_deadline_s": 1.0, "reply_deadline_s": 2.0}
    nodes = [node.model_dump(mode="json") for node in tiny_recipe().nodes]
    recipe = tiny_recipe(rounds=rounds, nodes=[*nodes, nodes[0] | {"name": "dan"}]).resolved(Path("/"))
    folder, events = run_recipe(recipe, tamper)
    assert "characters long" in of_kind(events, "node_refused")[0]["reason"]
    assert folder.events_path.stat().st_size < 100_000
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_no_file_stays_open_however_many_replies_wait(receiver: Receiver) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = [receiver.take(pack(REPLY, pack_buffers(PARCEL))) for _ in range(50)]
    assert not [taken for taken in kept if isinstance(taken, str)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
