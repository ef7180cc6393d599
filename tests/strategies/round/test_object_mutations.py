"""Flower's objects of a valid reply, mutated as they lie in the SuperLink: each is dropped whole, or counts whole."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree

from scripts.experiments.wire_grid import Sent
from strategies.exchange.messages import pack, pack_buffers
from tests.strategies.round.receiver import PARCELS, Receiver, reply_of
from tests.strategies.round.test_mutations import TRIALS, Draw, mutate_bytes, mutate_tree

KINDS_OF_OBJECT = ["Message", "RecordDict", "ConfigRecord", "MetricRecord", "ArrayRecord", "Array", "ArrayChunk", "X"]
ODD_BODIES = [b"", b"{}", b"[]", b"null", b"[" * 5000, b"9" * 5000, b'{"\\ud800": 1}', b"\xff" * 30, b"NaN"]
Mutation = Callable[[Draw, Sent], None]


def some(draw: Draw, sent: Sent) -> str:
    return draw.choice(sorted(sent.contents))


def parts(content: bytes) -> tuple[list[bytes], bytes]:
    head, _, rest = content.partition(b"\0")
    return head.split(b" "), rest


def whole(head: list[bytes], rest: bytes) -> bytes:
    return b" ".join([*head[:-1], str(len(rest)).encode()]) + b"\0" + rest


def any_bytes(draw: Draw, sent: Sent) -> None:
    key = some(draw, sent)
    sent.contents[key] = mutate_bytes(draw, sent.contents[key])


def random_object(draw: Draw, sent: Sent) -> None:
    sent.contents[some(draw, sent)] = draw.randbytes(draw.randrange(200))


def kind_of_object(draw: Draw, sent: Sent) -> None:
    key = some(draw, sent)
    head, rest = parts(sent.contents[key])
    sent.contents[key] = whole([draw.choice(KINDS_OF_OBJECT).encode(), *head[1:]], rest)


def length(draw: Draw, sent: Sent) -> None:
    key = some(draw, sent)
    head, rest = parts(sent.contents[key])
    number = draw.choice([b"-1", b"0", b"x", b"", b"9" * 5000, b"1e9", str(len(rest) + 1).encode()])
    sent.contents[key] = b" ".join([*head[:-1], number]) + b"\0" + rest


def children(draw: Draw, sent: Sent) -> None:
    key = some(draw, sent)
    head, rest = parts(sent.contents[key])
    listed = head[1].split(b",") if head[1] else []
    other = draw.choice(sorted(sent.contents)).encode()
    changed = draw.choice([[], listed * 2, listed[1:], listed[::-1], [*listed, other], [other], [b"zz"], [b""] * 3])
    sent.contents[key] = whole([head[0], b",".join(changed), b"0"], rest)


def body_of_json(draw: Draw, sent: Sent) -> None:
    written = [key for key, content in sent.contents.items() if content.startswith((b"Array ", b"ArrayR", b"RecordD"))]
    key = draw.choice(sorted(written))
    head, rest = parts(sent.contents[key])
    tree = mutate_tree(draw, json.loads(rest))
    sent.contents[key] = whole(head, json.dumps(tree).encode())


def odd_body(draw: Draw, sent: Sent) -> None:
    key = some(draw, sent)
    sent.contents[key] = whole(parts(sent.contents[key])[0], draw.choice(ODD_BODIES))


def body_of_protobuf(draw: Draw, sent: Sent) -> None:
    key = next(key for key, content in sent.contents.items() if content.startswith(draw.choice([b"Conf", b"Mess"])[:4]))
    head, rest = parts(sent.contents[key])
    sent.contents[key] = whole(head, mutate_bytes(draw, rest))


def exchanged(draw: Draw, sent: Sent) -> None:
    one, other = some(draw, sent), some(draw, sent)
    sent.contents[one], sent.contents[other] = sent.contents[other], sent.contents[one]


def lost(draw: Draw, sent: Sent) -> None:
    del sent.contents[some(draw, sent)]


def never_uploaded(draw: Draw, sent: Sent) -> None:
    sent.unavailable.add(some(draw, sent))


def tree(draw: Draw, sent: Sent) -> None:
    node = sent.tree
    while node.children and draw.random() < 0.6:
        node = draw.choice(list(node.children))
    kind = draw.randrange(4)
    if kind == 0:
        node.ClearField("children")
    elif kind == 1:
        node.object_id = draw.choice(["", "zz", "0" * 64, some(draw, sent)])
    elif kind == 2:
        node.children.extend(ObjectTree(object_id=f"{number:064x}") for number in range(draw.choice([1, 500])))
    else:
        copied = ObjectTree()
        copied.CopyFrom(sent.tree)
        node.children.append(copied)


def metadata(draw: Draw, sent: Sent) -> None:
    """What the SuperLink says cannot be written by a node; its message's own metadata can."""
    key = sent.message.metadata.message_id
    head, rest = parts(sent.contents[key])
    message = ProtoMessage.FromString(rest)
    told = message.metadata
    kind = draw.randrange(6)
    if kind == 0:
        told.src_node_id = draw.choice([0, 1, 2, 2**63])
    elif kind == 1:
        told.reply_to_message_id = draw.choice(["", "0" * 64, "x" * 10_000])
    elif kind == 2:
        told.message_type = draw.choice(["", "query", "evaluate", "train.x", "\0", "x" * 10_000])
    elif kind == 3:
        told.dst_node_id = draw.choice([0, 2**63])
    elif kind == 4:
        told.run_id = draw.choice([0, 2**63])
    else:
        message.error.code = draw.choice([0, -1, 2])
        message.error.reason = "\x1b[2J" * draw.choice([1, 2000])
    sent.contents[key] = whole(head, message.SerializeToString())


MUTATIONS: list[Mutation] = [
    any_bytes, random_object, kind_of_object, length, children, body_of_json, odd_body, body_of_protobuf, exchanged,
    lost, never_uploaded, tree, metadata,
]  # fmt: skip
HARMLESS = {length, tree, metadata, body_of_json, body_of_protobuf, exchanged, any_bytes, children, kind_of_object}
"""Mutations some of which change nothing that anybody reads."""


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("dtype", PARCELS)
def test_an_object_counts_whole_or_leaves_no_trace(dtype: str, trials: int, tmp_path: Path) -> None:
    draw = random.Random(19840401)
    receiver = Receiver(dtype, tmp_path)
    parcel = PARCELS[dtype]
    taken_of, reasons, silent = [], set(), 0
    for trial in range(trials):
        mutation = MUTATIONS[trial % len(MUTATIONS)]

        def spoil(sent: Sent, mutation: Mutation = mutation) -> Sent:
            mutation(draw, sent)
            return sent

        try:
            taken = receiver.take(pack(reply_of(parcel), pack_buffers(parcel)), spoil)
        except Exception as error:
            pytest.fail(f"trial {trial}, {mutation.__name__}: {type(error).__name__}: {str(error)[:300]}")
        if isinstance(taken, str):
            silent += not taken
            assert taken or mutation is never_uploaded
            reasons.add(taken[:30])
        else:
            taken_of.append(mutation)
    assert set(taken_of) <= HARMLESS
    assert len(taken_of) < trials / 3
    assert silent == pytest.approx(trials / len(MUTATIONS), abs=2)
    assert len(reasons) > 20
