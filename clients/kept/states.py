"""The state of a run on a node's disk: optimizer moments and position in the data after a round, and the last reply."""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strategies.exchange.messages import TrainReply, TrainRequest
from trfmoe_core.blocks import TRUNK
from trfmoe_core.config import Recipe, recipe_hash
from trfmoe_core.errors import RunFolderError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.private import tighten
from trfmoe_core.training.local_state import load_meta, load_state, save_state
from trfmoe_core.wire import Parcel

log = logging.getLogger("trfmoe.node")

KEEP_STATES = 2
"""Number of rounds whose state is kept. A coordinator that died in a round repeats it."""

_ROUND = re.compile(r"round-(\d{6,})\.safetensors")

LOST = "lost."
"""Prefix of a block's name: the rounding error of its last update, which the next update includes (error feedback)."""


def state_path(folder: Path, round_number: int) -> Path:
    """Returns where a node's state after a round lies in its state folder."""
    return folder / f"round-{round_number:06d}.safetensors"


def earlier_state_path(folder: Path, round_number: int) -> Path | None:
    """Returns the state that the training of a round goes on from: the last one before it, if any."""
    return max((path for number, path in _state_rounds(folder).items() if number < round_number), default=None)


def earlier_state(
    folder: Path, round_number: int, held: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Returns the tensors that a round starts from and the place in the data; none of either if the node is new.

    Moments of experts that have moved away or arrived since are left out, so they start from zero. A damaged file is
    set aside. The round then starts from the state before it, or as that of a new node.
    """
    path = earlier_state_path(folder, round_number)
    if path is None:
        return {}, None
    try:
        tensors, meta = load_state(path)
        moved, place = set(meta["held"]) ^ set(held), meta["place"]
    except (RunFolderError, KeyError, TypeError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another rank has done it
            path.replace(aside)
            log.warning("%s: set aside as %s; the training goes on without it (%s)", path, aside.name, error)
        return earlier_state(folder, round_number, held)
    kept = {name: tensor for name, tensor in tensors.items() if not _belongs_to(name, moved)}
    return kept, place


def keep_state(folder: Path, request: TrainRequest, tensors: Mapping[str, Tensor], place: Mapping[str, Any]) -> None:
    """Writes the training state after a round and deletes the states that no later round needs.

    Args:
        folder: The node's folder for this run.
        request: The request that was answered.
        tensors: The optimizer's moments and the rest that int8 lost, by name.
        place: The place in the token stream.

    Raises:
        RunFolderError: The disk refuses.
    """
    meta = {
        "round": request.round,
        "base_digest": request.base_digest,
        "held": request.held,
        "place": place,
    }
    save_state(state_path(folder, request.round), tensors, meta)
    # States of later rounds belong to rounds that were never committed.
    older = sorted(number for number in _state_rounds(folder) if number < request.round)
    wanted = {request.round, *older[len(older) - (KEEP_STATES - 1) :]}
    for number, path in _state_rounds(folder).items():
        if number not in wanted:
            path.unlink(missing_ok=True)


def state_folders(base: Path, name: str) -> dict[str, Path]:
    """Returns the folders in which a node has kept something: id of the run -> folder. Links are left out."""
    found = {}
    for folder in sorted(base.glob(f"*/{name}")):
        if not folder.is_symlink() and (_reply_path(folder).is_file() or _state_rounds(folder)):
            found[folder.parent.name] = folder
    return found


def tighten_states(base: Path, name: str) -> None:
    """Removes other users' access to the folders of all runs, including those that an earlier release made.

    `base` itself may be the user's own and stays as it is.

    Raises:
        RunFolderError: one belongs to another user.
    """
    for folder in state_folders(base, name).values():
        tighten([folder, folder.parent])


def give_up(folder: Path) -> None:
    """Deletes a node's state of a run. If the run goes on, its optimizer moments start from zero."""
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.partial"), *folder.glob("*.damaged")):
        path.unlink(missing_ok=True)
    for name in ("bases", "ranks", "frozen"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for empty in (folder, folder.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()


def keep_reply(folder: Path, request: TrainRequest, recipe: Recipe, reply: TrainReply, parcel: Parcel) -> None:
    """Writes the reply to a request over the last one, so that a repeated request needs no new training.

    Args:
        folder: The node's folder for this run.
        request: The request that was answered.
        recipe: The recipe of that request.
        reply: The reply's header.
        parcel: The reply's buffers.
    """
    buffers = {str(number): torch.frombuffer(data, dtype=torch.uint8) for number, data in enumerate(parcel.buffers)}
    save_state(
        _reply_path(folder), buffers, {"request": _mark(request, recipe), "reply": reply.model_dump(mode="json")}
    )


def kept_reply(folder: Path, request: TrainRequest, recipe: Recipe) -> tuple[TrainReply, Parcel] | None:
    """Returns the last reply if its request had the same round, weights, held blocks, placement and recipe.

    If the file is missing or damaged, the node trains again.
    """
    try:
        if load_meta(_reply_path(folder)).get("request") != _mark(request, recipe):
            return None
        buffers, meta = load_state(_reply_path(folder))
    except RunFolderError:
        return None
    reply = TrainReply.model_validate_json(json.dumps(meta["reply"]))
    return reply, Parcel(str(reply.index), tuple(buffers[str(number)].numpy().data for number in range(len(buffers))))


def _mark(request: TrainRequest, recipe: Recipe) -> dict[str, Any]:
    return {
        **{name: getattr(request, name) for name in ("run_id", "round", "epoch", "base_digest", "steps")},
        "momentum": request.momentum and hashlib.sha256(request.momentum.index.encode()).hexdigest(),
        "wants_momentum": request.wants_momentum,
        "held": hashlib.sha256("\n".join(request.held).encode()).hexdigest(),
        "recipe": recipe_hash(recipe),
        "code": code_fingerprint(),
    }


def _reply_path(folder: Path) -> Path:
    return folder / "reply.safetensors"


def _state_rounds(folder: Path) -> dict[int, Path]:
    found = {path: _ROUND.fullmatch(path.name) for path in sorted(folder.glob("round-*.safetensors"))}
    return {int(match[1]): path for path, match in found.items() if match}


def _belongs_to(name: str, blocks: Collection[str]) -> bool:
    """Returns True if a tensor of a node's state is about one of the experts: its count of updates, or what it lost."""
    kind, _, block = name.partition(".")
    return block != TRUNK and kind in ("updates", LOST.rstrip(".")) and block in blocks
