"""Stands for `flwr-clientapp` on a hostile node: works as it should, and answers with rubbish.

`HOSTILE_FROM` is `describe` or `train`: the first kind of message that is answered so. Every answer is another rubbish.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType
from flwr.supercore.inflatable.inflatable_object import InflatableObject
from flwr.supernode.cli import flwr_clientapp
from flwr.supernode.runtime import run_clientapp as runner


class Raw(InflatableObject):
    """An object with whatever content: its id is true, and its length, or the SuperLink would refuse it."""

    def __init__(self, kind: str, body: bytes, children: dict[str, InflatableObject] | None = None) -> None:
        self._children = children or {}
        head = f"{kind} {','.join(self._children)} {len(body)}"
        self._content = head.encode() + b"\0" + body

    @property
    def children(self) -> dict[str, InflatableObject] | None:
        return self._children

    def deflate(self) -> bytes:
        return self._content


def put(message: Message, name: str, record: Any) -> None:
    """Puts anything in the place of a record, which Flower's own class would refuse."""
    message.content.__dict__["_data"][name] = record


def chunk(data: bytes) -> dict[str, InflatableObject]:
    piece = Raw("ArrayChunk", data)
    return {piece.object_id: piece}


def array(metadata: bytes, data: bytes = b"xyz") -> Raw:
    inner = Raw("Array", metadata, chunk(data))
    return Raw("ArrayRecord", json.dumps({"0": inner.object_id}).encode(), {inner.object_id: inner})


def metadata(places: list[int]) -> bytes:
    told = {"dtype": "uint8", "shape": [3], "stype": "trfmoe.bytes", "arraychunk_ids": places}
    return json.dumps(told).encode()


def records(body: bytes) -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        message.__dict__["_content"] = Raw("RecordDict", body)

    return spoil


def raw_array(data: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(data),), stype="trfmoe.bytes", data=data)


def with_array(message: Message, data: bytes, count: int = 1) -> None:
    record = message.content.setdefault("parcel", ArrayRecord())
    for _ in range(count):
        record[str(len(record))] = raw_array(data)


def long_header(message: Message) -> None:
    header = json.loads(str(message.content["header"]["json"]))
    message.content["header"] = ConfigRecord({"json": json.dumps({**header, **{f"x{n}": [n] for n in range(10**6)}})})


RUBBISH: list[Callable[[Message], None]] = [
    lambda m: put(m, "header", Raw("ConfigRecord", b"\xff" * 40)),
    records(b'{"header": '),
    lambda m: put(m, "header", Raw("ArrayRecord", b"\x0a\x05")),
    lambda m: put(m, "parcel", array(b'{"dtype": ')),
    records(json.dumps({"header": "0" * 64}).encode()),
    lambda m: put(m, "parcel", array(metadata([0] * 10**6), b"x" * 10**6)),
    lambda m: with_array(m, b""),
    lambda m: with_array(m, b"x", 500),
    long_header,
    lambda m: put(m, "parcel", array(metadata([5]))),
    lambda m: put(m, "more", ConfigRecord({"x": [0.5] * 10**6})),
    lambda m: put(m, "header", ConfigRecord({"json": "\x1b[2J" * 10**5})),
]


def main() -> None:
    """Runs one message, and spoils its answer on the way to the SuperNode."""
    push, state = runner.push_message, Path(os.environ["HOSTILE_STATE"])

    def push_rubbish(client: Any, message: Message, context: Any) -> None:
        kind = message.metadata.message_type
        if message.has_content() and (os.environ["HOSTILE_FROM"] == "describe" or kind != MessageType.QUERY):
            number = len(state.read_text().split()) if state.exists() else 0
            RUBBISH[number % len(RUBBISH)](message)
            with state.open("a") as file:
                file.write(f"{kind}\n")
        push(client, message, context)

    runner.push_message = push_rubbish
    sys.argv[0] = "flwr-clientapp"
    flwr_clientapp()


if __name__ == "__main__":
    main()
