"""The messages between coordinator and nodes, and their form in Flower's records.

A message holds one ConfigRecord with a JSON header, which is checked field by field on arrival, and at most one
ArrayRecord with the buffers of a parcel. A request may bring the frozen part of the model in a second one. The buffers
are raw bytes, because Flower's own array formats lack bfloat16 and cost one request for each tensor.
"""

import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from pydantic import FailFast, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from strategies.exchange.boundary import plain
from strategies.exchange.refusals import Refusal
from trfmoe_core.config.section import Name, Section
from trfmoe_core.data.documents.reports import Status
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Parcel

PROTOCOL: Literal[1] = 1
MAX_HEADER = 64 * 1024 * 1024
"""Characters of a header that the coordinator sends. `size_limits` bounds what nodes send."""

_HEADER, _PARCEL, _FROZEN = "header", "parcel", "frozen"
_STYPE = "trfmoe.bytes"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Block = Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9._]+$")]
Index = Annotated[str, Field(max_length=MAX_HEADER)]
Number = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Share = Annotated[float, Field(ge=0, le=1)]
Library = Literal["python", "torch"]
Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z.+_-]{1,64}$")]
Device = Annotated[
    str,
    Field(
        pattern=r"^((cpu|cuda|cuda:[0-9]{1,4})( x [0-9]{1,4})?(, [0-9]{1,4} threads?)?(, (float32|bfloat16))?)?$",
    ),
]
Lap = Literal["start", "data", "state", "decode", "evaluate", "train", "encode"]
"""The parts of a node's round whose seconds are measured."""
DrillLabel = Annotated[str, Field(pattern=r"^[a-z_]{1,20}( x[0-9.e+-]{1,20})?$")]
Header = TypeVar("Header", bound="Heading")


class Heading(Section):
    """Base of everything in a header. Checking stops at the first unknown key."""

    from_yaml: ClassVar[bool] = False
    records: ClassVar[frozenset[str]] = frozenset({_HEADER, _PARCEL})
    """Records that a message with this header may hold."""

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_keys(cls, data: object) -> object:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    name = plain(str(key), 40)
                    raise PydanticCustomError("unknown", "{name}: Extra inputs are not permitted", {"name": name})
        return data


class DescribeRequest(Heading):
    """Asks a node who it is, and lets it prepare its data."""

    protocol: Literal[1] = PROTOCOL
    run_id: RunId
    recipe: dict[str, Any] = Field(max_length=200)
    code_fingerprint: Digest
    tokenizer_fingerprint: Digest


class Description(Heading):
    """A node's description of itself and its data. `refusal` says why it cannot take part.

    No field can hold a path, a file's name or text of the owner: there are numbers, hashes, and words of closed sets.
    """

    protocol: Literal[1] = PROTOCOL
    name: Name
    zone: Name | None = None
    refusal: Refusal | None = None
    code_fingerprint: Digest
    tokenizer_fingerprint: Digest | None = None
    versions: dict[Library, Version]
    device: Device = ""
    train_tokens: Count = 0
    held_out_tokens: Count = 0
    files: dict[Status, Count] = Field(default_factory=dict)
    duplicates: Count = Field(0, description="pieces left out because the same text came before")
    sources: Count = Field(0, description="that give text to train on")
    num_notes: Count = Field(0, description="remarks on the data, which stand in the node's log")
    bigram_bits_per_byte: float | None = Field(None, ge=0, le=64)
    bases: Annotated[list[Digest], FailFast()] = Field(
        default_factory=list, max_length=4, description="models of the run that it still has"
    )
    frozen: Annotated[list[Digest], FailFast()] = Field(
        default_factory=list, max_length=4, description="frozen parts of the run's model that it has"
    )


class RoundVerdict(Heading):
    """What the votes of an earlier round made of a node's updates, in blocks."""

    round: Number
    accepted: Count
    outvoted: Count


class MomentumIndex(Heading):
    """Announces the voted momentum: the index of a second parcel, whose buffers follow those of the model."""

    index: Index
    buffers: Count


class TrainRequest(Heading):
    """Asks a node to evaluate the arriving model on its held-out text, train it for `steps` steps and send the updates.

    With `steps` 0 the node only evaluates.
    """

    records: ClassVar[frozenset[str]] = frozenset({_HEADER, _PARCEL, _FROZEN})
    protocol: Literal[1] = PROTOCOL
    run_id: RunId
    round: Number
    epoch: Number
    base_digest: Digest
    steps: Number
    held: Annotated[list[Block], FailFast()] = Field(max_length=10**6)
    recipe: dict[str, Any] = Field(max_length=200)
    index: Index
    against: Digest | None = Field(None, description="base digest of what the parcel is the difference to")
    frozen: Digest | None = Field(None, description="of the weights that are never trained")
    frozen_index: Index | None = Field(None, description="of the parcel of these weights, if they come along")
    journal_entries: Count = Field(0, description="entries in the coordinator's journal when the round began")
    journal_head: Digest | None = Field(None, description="hash of the last of them; nodes note it for comparison")
    verdict: RoundVerdict | None = Field(
        None, description="of the last vote in which the node took part, for its owner"
    )
    momentum: MomentumIndex | None = Field(None, description="the momentum to go on with, if one was voted")
    wants_momentum: bool = Field(False, description="the reply's parcel brings the node's momentum, too")


class Evaluation(Heading):
    """The arriving model on the node's own held-out text."""

    loss: float = Field(ge=0, le=1e6, description="nats a token")
    bits_per_byte: float = Field(ge=0, le=1e6)
    tokens: Count


Shares = Annotated[list[Share], FailFast(), Field(max_length=4096)]


class Training(Heading):
    """The node's local training of one round."""

    loss: float = Field(ge=0, le=1e6, description="nats a token, mean over the steps")
    balance_loss: float = Field(ge=0, le=1e6)
    grad_norm: float = Field(ge=0, le=1e30)
    learning_rate: float = Field(ge=0, le=10)
    tokens: Count = Field(gt=0)
    seconds: float = Field(ge=0, le=1e8)
    data_wait_share: Share
    peak_memory_bytes: Count
    expert_share: Annotated[list[Shares], FailFast()] = Field(max_length=256)


class TrainReply(Heading):
    """Answers a `TrainRequest`: the echo, the measurements, and the index of the parcel that comes along."""

    protocol: Literal[1] = PROTOCOL
    run_id: RunId | Literal[""]
    round: Number
    epoch: Number
    base_digest: Digest
    name: Name
    error: Refusal | None = None
    evaluation: Evaluation | None = None
    training: Training | None = None
    index: Index | None = None
    spent: dict[Lap, Annotated[float, Field(ge=0, le=1e8)]] = Field(
        default_factory=dict, description="seconds by owner, from the start of the node's process on"
    )
    lacks_base: bool = Field(False, description="the node does not have what the difference is against")
    lacks_frozen: bool = Field(False, description="the node does not have the weights that are never trained")
    drill: DrillLabel | None = Field(None, description="the fault that this node was told to play")

    def in_short(self) -> "TrainReply":
        """Returns the reply without its longest parts, the parcel's index and the shares of the experts."""
        training = self.training and self.training.model_copy(update={"expert_share": []})
        return self.model_copy(update={"index": None, "training": training})


def pack_buffers(parcel: Parcel) -> ArrayRecord:
    """Returns a parcel's buffers as one ArrayRecord; share it between messages, equal content travels once."""
    return ArrayRecord(
        {
            str(number): Array(dtype="uint8", shape=(len(data),), stype=_STYPE, data=bytes(data))
            for number, data in enumerate(parcel.buffers)
        }
    )


def pack(header: Section, buffers: ArrayRecord | None = None, frozen: ArrayRecord | None = None) -> RecordDict:
    """Returns a message's content.

    Args:
        header: What the message says.
        buffers: Those of the parcel that `header.index` describes.
        frozen: Those of the parcel that `header.frozen_index` describes.
    """
    content = RecordDict({_HEADER: ConfigRecord({"json": header.model_dump_json()})})
    for name, record in ((_PARCEL, buffers), (_FROZEN, frozen)):
        if record is not None:
            content[name] = record
    return content


def read_header(message: Message, kind: type[Header], longest: int = MAX_HEADER, values: int | None = None) -> Header:
    """Returns the header of a message, checked.

    Args:
        message: What arrived.
        kind: What it must be.
        longest: Characters that it may have.
        values: JSON values that it may have, counted by the marks before them; None: any number.

    Raises:
        WireError: when there is none, it is not a `kind`, it is too large, or something lies beside it.
    """
    if message.has_error():
        raise WireError(f"Flower reports error {message.error.code} in the place of a {kind.__name__}")
    if not message.has_content():
        raise WireError(f"the message is empty, without even a {kind.__name__}")
    record = message.content.get(_HEADER)
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    if not isinstance(text, str):
        raise WireError(f"the message has no {kind.__name__} header")
    beside = [name for name in message.content if name not in kind.records]
    beside += [name for name in message.content[_HEADER] if name != "json"]
    if beside:
        raise WireError(f"the message holds {plain(beside[0], 40)!r} besides its header and parcel")
    if len(text) > longest:
        raise WireError(f"the header is {len(text)} characters long; {longest} are allowed")
    if values is not None and (found := sum(text.count(mark) for mark in "[{,:")) > values:
        raise WireError(f"the header has {found} values; {values} are allowed")
    try:
        return kind.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        spoken = _protocol(text)
        if spoken != PROTOCOL:
            raise WireError(
                f"the other side speaks version {spoken!r:.20} of the wire, this one {PROTOCOL}; "
                "use one release everywhere"
            ) from None
        if not isinstance(error, ValidationError):
            raise WireError(f"the header is no {kind.__name__}: {error}") from None
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(plain(str(part), 40) for part in first["loc"])
        raise WireError(f"the header is no {kind.__name__}: {where + ': ' if where else ''}{first['msg']}") from None


def _protocol(text: str) -> object:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return PROTOCOL  # what else is wrong with it is said
    return header.get("protocol", PROTOCOL) if isinstance(header, dict) else PROTOCOL


def read_frozen_parcel(message: Message, request: TrainRequest) -> Parcel | None:
    """Returns the parcel of the frozen part that comes with a request; None if none is announced.

    Raises:
        WireError: when it is announced and missing, or of a foreign kind.
    """
    if request.frozen_index is None:
        return None
    return read_parcel(message, request.frozen_index, 1 << 62, name=_FROZEN)


def read_parcel(
    message: Message, index: str, max_bytes: int, max_buffers: int | None = None, name: str = _PARCEL
) -> Parcel:
    """Returns the parcel of a message: the index from its header and the raw buffers.

    Args:
        message: What arrived.
        index: The parcel's index, from the header.
        max_bytes: Most bytes that the buffers may have together.
        max_buffers: Most buffers; None: any number.
        name: Record in which the buffers lie.

    Raises:
        WireError: when the buffers are missing, empty, of a foreign kind, too many or too large.
    """
    record = message.content.get(name)
    if not isinstance(record, ArrayRecord):
        raise WireError(f"the message carries no {name}")
    if max_buffers is not None and len(record) > max_buffers:
        raise WireError(f"the parcel has {len(record)} buffers; the node's blocks need {max_buffers} at most")
    buffers = []
    total = 0
    for number in range(len(record)):
        array = record.get(str(number))
        if not isinstance(array, Array) or array.stype != _STYPE or not isinstance(array.data, bytes):
            raise WireError(f"buffer {number} of the parcel is missing or not {_STYPE}")
        if not array.data:
            raise WireError(f"buffer {number} of the parcel is empty")
        if array.dtype != "uint8" or array.shape != (len(array.data),):
            raise WireError(f"buffer {number} of the parcel is not what its type and shape say")
        total += len(array.data)
        if total > max_bytes:
            raise WireError(f"the parcel has more than the {max_bytes} bytes that this node can need to send")
        buffers.append(array.data)
    return Parcel(index, tuple(buffers))


def has_parcel(message: Message) -> bool:
    """Returns True if a message holds buffers."""
    return _PARCEL in message.content
