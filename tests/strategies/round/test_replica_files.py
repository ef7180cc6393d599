"""Replicas on the disk: one file and one map a node, the same bytes, and no file that stays open."""

import os
from pathlib import Path

import pytest
import torch

from strategies.exchange.messages import pack, pack_buffers
from strategies.round.replica_files import ReplicaFiles
from strategies.round.replies import check_reply, relocated
from tests.strategies.round.receiver import LAYOUT, PARCELS, RECIPES, REQUEST, message_of, reply_of
from trfmoe_core.errors import RunFolderError
from trfmoe_core.wire import Parcel, dense


def test_buffers_of_odd_sizes_come_back_as_they_were(tmp_path: Path) -> None:
    spill = ReplicaFiles(tmp_path / "spill")
    buffers = tuple(bytes(range(size)) for size in (1, 63, 64, 65, 200))
    kept = spill.keep("ada", Parcel("index", buffers))
    again = spill.keep("ada", Parcel("index", (b"other" * 100,)))
    assert [bytes(buffer) for buffer in kept.buffers] == list(buffers), "a map outlives a newer file of its node"
    assert bytes(again.buffers[0]) == b"other" * 100
    assert len(list(spill.folder.iterdir())) == 1
    spill.clear()
    assert [bytes(buffer) for buffer in kept.buffers] == list(buffers)
    assert spill.keep("ada", Parcel("index", ())).buffers == ()


def test_other_accounts_cannot_read_what_a_node_sent(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        spill = ReplicaFiles(tmp_path / "spill")
        spill.keep("ada", Parcel("index", (b"update",)))
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (spill.folder, *spill.folder.iterdir())]
    assert modes == [0o700, 0o600]


@pytest.mark.parametrize("dtype", PARCELS)
def test_updates_from_the_disk_are_those_that_were_sent(dtype: str, tmp_path: Path) -> None:
    parcel = PARCELS[dtype]
    message = message_of(pack(reply_of(parcel), pack_buffers(parcel)))
    checked = check_reply(message, REQUEST, "ada", LAYOUT, RECIPES[dtype])
    moved = relocated(checked, ReplicaFiles(tmp_path).keep("ada", checked.parcel), LAYOUT, RECIPES[dtype])
    assert moved.num_bytes == checked.num_bytes
    for block, update in checked.updates.items():
        assert torch.equal(dense(update), dense(moved.updates[block]))


def test_a_disk_that_cannot_be_written_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file/spill: a replica cannot be kept there .*--resume"):
        ReplicaFiles(tmp_path / "file" / "spill").keep("ada", Parcel("index", (b"x",)))
