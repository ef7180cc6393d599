"""Parcels: blocks as raw little-endian bytes with an index of dtype, shapes, names and digests. No pickle.

An index is JSON. The payload is a list of flat buffers; blocks follow each other without gaps and never span two
buffers unless a block alone is larger than the limit. A block in int8 or int4 is the float32 scales of its rows and
then its values. Digests are over what is sent. `decode` checks everything that the index says against what the
receiver expects before it makes a tensor, and its only exception is `WireError`.
"""

import hashlib
import io
import json
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trfmoe_core.blocks import BlockLayout, Blocks, BlockSpec
from trfmoe_core.errors import WireError
from trfmoe_core.malloc import advise_large_pages
from trfmoe_core.quantize import LEVELS, Quantized, num_bytes, num_rows, quantize, rows_of

WIRE_VERSION = 1
_TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8, "int4": torch.uint8}
DTYPES = tuple(_TORCH)
"""Types that travel."""

_ENTRY_KEYS = {"block", "dtype", "tensors", "buffer", "offset", "size", "sha256"}

Replica = Tensor | Quantized
"""A flat vector of the type in which it travelled."""

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Parcel:
    """Blocks as they travel."""

    index: str
    buffers: tuple[bytes | memoryview, ...]

    @property
    def num_bytes(self) -> int:
        """Size of index and buffers."""
        return len(self.index) + sum(len(buffer) for buffer in self.buffers)


def encoded_size(spec: BlockSpec, dtype: str) -> int:
    """Returns how many bytes a block is on the wire."""
    if dtype in LEVELS:
        return 4 * num_rows(rows_of(_shapes(spec))) + num_bytes(spec.numel, dtype)
    return spec.numel * _TORCH[dtype].itemsize


def encode(
    blocks: Mapping[str, Tensor],
    layout: BlockLayout,
    dtype: str,
    max_buffer_bytes: int,
    sent: Callable[[str, Tensor], None] | None = None,
) -> Parcel:
    """Returns blocks (flat float32 vectors) as a parcel of `dtype`, in the order of their names.

    Args:
        blocks: Asked for each block once, in that order, so they may be made when they are asked for.
        layout: The model's blocks.
        dtype: One of `DTYPES`.
        max_buffer_bytes: Size of a buffer, unless one block is larger.
        sent: Told of every block what its receiver will read, float32. With a type of `LEVELS` it may change the block.

    Raises:
        WireError: on an unknown dtype, or on a big-endian host.
    """
    if dtype not in DTYPES:
        raise WireError(f"dtype {dtype!r} does not travel; choose one of {', '.join(DTYPES)}")
    if sys.byteorder != "little":
        raise WireError("parcels are little-endian and this host is big-endian; run the node on another one")
    entries: list[dict[str, Any]] = []
    buffers: list[bytes] = []
    for names in _packed(layout, sorted(blocks), dtype, max_buffer_bytes):
        # A block is written once, to where it travels. The stream gives up its bytes without a copy.
        stream = io.BytesIO(bytes(sum(encoded_size(layout.specs[name], dtype) for name in names)))
        filled = 0
        with stream.getbuffer() as buffer:
            advise_large_pages(torch.frombuffer(buffer, dtype=torch.uint8).data_ptr(), len(buffer))
            for name in names:
                spec = layout.specs[name]
                with buffer[filled : filled + encoded_size(spec, dtype)] as place:
                    _write(blocks[name], dtype, _shapes(spec), place)
                    if sent is not None:
                        sent(name, dense(_view(place, dtype, _shapes(spec))))
                    digest = hashlib.sha256(place).hexdigest()
                    entries.append(_entry(spec, dtype, len(buffers), filled, len(place), digest))
                    filled += len(place)
        buffers.append(stream.getvalue())
    return Parcel(_index(entries), tuple(buffers))


def parcel_size(layout: BlockLayout, names: Collection[str], dtype: str, max_buffer_bytes: int) -> int:
    """Returns `encode(...).num_bytes` for blocks of these names, from their shapes alone."""
    entries: list[dict[str, Any]] = []
    total = 0
    for number, group in enumerate(_packed(layout, sorted(names), dtype, max_buffer_bytes)):
        filled = 0
        for name in group:
            size = encoded_size(layout.specs[name], dtype)
            entries.append(_entry(layout.specs[name], dtype, number, filled, size, "0" * 64))
            filled += size
        total += filled
    return len(_index(entries)) + total


def _packed(layout: BlockLayout, names: Sequence[str], dtype: str, max_buffer_bytes: int) -> list[list[str]]:
    """Returns the blocks of every buffer."""
    groups: list[list[str]] = []
    filled = 0
    for name in names:
        size = encoded_size(layout.specs[name], dtype)
        if not groups or filled + size > max_buffer_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def longest_index(layout: BlockLayout, blocks: Collection[str]) -> str:
    """Returns an index as long as that of any parcel of these blocks, with spaces."""
    size = 10**15
    return json.dumps(
        {
            "version": WIRE_VERSION,
            "entries": [
                _entry(layout.specs[name], max(DTYPES, key=len), size, size, size, "0" * 64) for name in blocks
            ],
        }
    )


def join(parcels: Sequence[Parcel]) -> Parcel:
    """Returns one parcel with the blocks and the buffers of all; buffers are shared, not copied."""
    entries: list[dict[str, Any]] = []
    buffers: list[bytes | memoryview] = []
    for parcel in parcels:
        for entry in json.loads(parcel.index)["entries"]:
            entries.append({**entry, "buffer": entry["buffer"] + len(buffers)})
        buffers += parcel.buffers
    return Parcel(_index(entries), tuple(buffers))


def decode(parcel: Parcel, layout: BlockLayout, allowed: Collection[str], dtypes: Collection[str]) -> Blocks:
    """Returns a parcel's blocks as flat float32 vectors of their own, in the order of their names.

    Args:
        parcel: Header and buffers.
        layout: Sizes of the blocks.
        allowed: Blocks that may be in it.
        dtypes: Number types that they may have.

    Raises:
        WireError: As `views` does.
    """
    return {name: dense(view) for name, view in views(parcel, layout, allowed, dtypes).items()}


def dense(replica: Replica) -> Tensor:
    """Returns a replica as float32 values of its own."""
    return replica.dense() if isinstance(replica, Quantized) else replica.to(torch.float32, copy=True)


def advanced(held: Tensor, difference: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a block after a difference has arrived: what node and coordinator both keep, equal to the bit.

    Args:
        held: What the receiver has, of `dtype`.
        difference: As it was decoded, float32.
        dtype: Of whole models on the wire; the result is of it.
    """
    return (held.to(torch.float32) + difference).to(dtype)


def views(
    parcel: Parcel,
    layout: BlockLayout,
    allowed: Collection[str],
    dtypes: Collection[str],
    *,
    hashed: bool = False,
) -> dict[str, Replica]:
    """Returns a parcel's blocks as flat vectors of the type in which they travelled, in the order of their names.

    They share the memory of the buffers, which may be mapped files, and must not be written.

    Args:
        parcel: What arrived.
        layout: The receiver's own layout; shapes must equal it.
        allowed: Names that may stand in the parcel. Missing ones are not an error.
        dtypes: Types that the receiver accepts.
        hashed: The digests of these very bytes were compared before, and are not again.

    Raises:
        WireError: when anything is not as expected.
    """
    entries = _parse_index(parcel.index, layout, allowed)
    placed = [0] * len(parcel.buffers)
    seen: set[str] = set()
    for entry in entries:
        name = entry["block"]
        if name not in allowed:
            known = "held by another node" if name in layout.specs else "unknown"
            raise WireError(f"block {name[:80]!r} is {known}; expected only {len(allowed)} blocks of this node")
        if name in seen:
            raise WireError(f"block {name!r} stands twice in one parcel")
        seen.add(name)
        _check_entry(entry, layout.specs[name], dtypes, parcel.buffers, placed)
    for number, buffer in enumerate(parcel.buffers):
        if placed[number] != len(buffer) or not len(buffer):
            raise WireError(f"buffer {number} holds {len(buffer)} bytes, its blocks {placed[number]}")
    found: dict[str, Replica] = {}
    for entry in sorted(entries, key=lambda entry: str(entry["block"])):
        data = memoryview(parcel.buffers[entry["buffer"]])[entry["offset"] : entry["offset"] + entry["size"]]
        if not hashed and hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise WireError(f"block {entry['block']!r}: the digest differs; the bytes changed on the way")
        view = _view(data, entry["dtype"], _shapes(layout.specs[entry["block"]]))
        if isinstance(view, Quantized) and not bool(((view.scales >= 0) & (view.scales < float("inf"))).all()):
            raise WireError(f"block {entry['block']!r}: a scale is negative or not finite")
        found[entry["block"]] = view
    return found


def map_values(parcel: Parcel, change: Callable[[Tensor], Tensor]) -> Parcel:
    """Returns a parcel whose every block is `change` of its flat float32 values, with digests that fit.

    For tools that alter parcels on purpose; it trusts the index.
    """
    tree = json.loads(parcel.index)
    buffers = [bytearray(buffer) for buffer in parcel.buffers]
    for entry in tree["entries"]:
        place = slice(entry["offset"], entry["offset"] + entry["size"])
        shapes = tuple(tuple(shape) for _, shape in entry["tensors"])
        values = dense(_view(memoryview(parcel.buffers[entry["buffer"]])[place], entry["dtype"], shapes))
        data = memoryview(bytearray(entry["size"]))
        _write(change(values), entry["dtype"], shapes, data)
        buffers[entry["buffer"]][place] = data
        entry["sha256"] = hashlib.sha256(data).hexdigest()
    return Parcel(json.dumps(tree, separators=(",", ":")), tuple(bytes(buffer) for buffer in buffers))


def _entry(spec: BlockSpec, dtype: str, buffer: int, offset: int, size: int, digest: str) -> dict[str, Any]:
    return {
        "block": spec.name,
        "dtype": dtype,
        "tensors": _tensors(spec),
        "buffer": buffer,
        "offset": offset,
        "size": size,
        "sha256": digest,
    }


def _index(entries: list[dict[str, Any]]) -> str:
    return json.dumps({"version": WIRE_VERSION, "entries": entries}, separators=(",", ":"))


def _parse_index(index: str, layout: BlockLayout, allowed: Collection[str]) -> list[dict[str, Any]]:
    # Bounded before it is parsed, in length and in the number of values, which cost more memory than their text.
    # Not to the character, so that an index with a few blocks too many is refused by the name of one of them.
    longest = longest_index(layout, [name for name in allowed if name in layout.specs])
    for found, limit, what in (
        (len(index), 4 * len(longest) + 400, "characters long"),
        (_num_values(index), 4 * _num_values(longest) + 40, "values long"),
    ):
        if found > limit:
            raise WireError(f"the index is {found} {what}; {limit} are the most that it can need")
    try:
        tree = json.loads(index, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the index is no JSON: {str(error)[:100]}") from None
    if not isinstance(tree, dict) or set(tree) != {"version", "entries"} or not isinstance(tree["entries"], list):
        raise WireError("the index is not {version, entries}")
    if type(tree["version"]) is not int or tree["version"] != WIRE_VERSION:
        raise WireError(f"wire version {str(tree['version'])[:20]!r}; this side speaks {WIRE_VERSION}; use one release")
    for entry in tree["entries"]:
        if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
            raise WireError("an entry of the index does not have the keys " + ", ".join(sorted(_ENTRY_KEYS)))
        texts = all(isinstance(entry[key], str) for key in ("block", "dtype", "sha256"))
        counts = all(type(entry[key]) is int and entry[key] >= 0 for key in ("buffer", "offset", "size"))
        if not texts or not counts:
            raise WireError("an entry of the index has a value of the wrong type")
    return list(tree["entries"])


def _num_values(text: str) -> int:
    return sum(text.count(mark) for mark in "[{,:")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _check_entry(
    entry: dict[str, Any],
    spec: BlockSpec,
    dtypes: Collection[str],
    buffers: Sequence[bytes | memoryview],
    placed: list[int],
) -> None:
    name = spec.name
    if entry["dtype"] not in DTYPES or entry["dtype"] not in dtypes:
        raise WireError(f"block {name!r}: dtype {entry['dtype'][:20]!r}; accepted: {', '.join(sorted(dtypes))}")
    # Compared as text: to Python, 3.0 and true are equal to integers.
    if json.dumps(entry["tensors"]) != json.dumps(_tensors(spec)):
        raise WireError(f"block {name!r}: names or shapes differ from the model's: {str(entry['tensors'])[:120]!r}")
    if entry["size"] != encoded_size(spec, entry["dtype"]):
        raise WireError(f"block {name!r}: {entry['size']} bytes for {spec.numel} values of {entry['dtype']}")
    number = entry["buffer"]
    if number >= len(buffers):
        raise WireError(f"block {name!r}: buffer {number} of {len(buffers)}")
    if entry["offset"] != placed[number]:
        raise WireError(f"block {name!r}: starts at byte {entry['offset']} of buffer {number}, not {placed[number]}")
    placed[number] += entry["size"]
    if placed[number] > len(buffers[number]):
        raise WireError(f"block {name!r}: ends past the {len(buffers[number])} bytes of buffer {number}")


def _tensors(spec: BlockSpec) -> list[Any]:
    return [[slot.tensor, list(slot.shape)] for slot in spec.slots]


def _shapes(spec: BlockSpec) -> Shapes:
    return tuple(slot.shape for slot in spec.slots)


def _write(values: Tensor, dtype: str, shapes: Shapes, place: memoryview) -> None:
    """Writes a block as it travels to a place of its size."""
    flat = values.detach().to(torch.float32).contiguous()
    if not place:
        return
    if dtype not in LEVELS:
        torch.frombuffer(place, dtype=_TORCH[dtype]).copy_(flat)
        return
    rows = rows_of(shapes)
    begin = 4 * num_rows(rows)
    quantized = quantize(flat, rows, dtype, torch.frombuffer(place, dtype=_TORCH[dtype], offset=begin))
    place[:begin] = quantized.scales.numpy().data.cast("B")


def _view(data: memoryview, dtype: str, shapes: Shapes) -> Replica:
    with warnings.catch_warnings():
        # The bytes of a message are read-only; so is whoever asked for a view.
        warnings.filterwarnings("ignore", message="The given (buffer|NumPy array) is not writable")
        if dtype not in LEVELS:
            return torch.frombuffer(data, dtype=_TORCH[dtype])
        rows = rows_of(shapes)
        begin = 4 * num_rows(rows)
        # Copied, for they need not lie at a multiple of four.
        scales = torch.frombuffer(bytearray(data[:begin]), dtype=torch.float32)
        return Quantized(torch.frombuffer(data, dtype=_TORCH[dtype], offset=begin), scales, rows)
