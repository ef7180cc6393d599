from pathlib import Path

import numpy as np
import pytest

from trfmoe_core.data.batches.store import StoreWriter, read_store
from trfmoe_core.errors import DataError


def write(folder: Path, vocab_size: int, runs: int = 2) -> None:
    """Writes three pieces, the last in a run of its own; the second is only a bos."""
    bos = vocab_size - 1
    with StoreWriter(folder, "x", vocab_size) as writer:
        for ids, sizes, num_bytes in (([bos, 1, 2, 3, bos], [4, 1], [9, 1]), ([bos, 4], [2], [4]))[:runs]:
            number = np.array(sizes, np.int64)
            digests = np.stack([number, number + 1], axis=1).astype(np.uint64)
            writer.append(np.array(ids), number, np.array(num_bytes, np.int64), digests, number * 10)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(259, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_stores_come_back_memory_mapped(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    write(tmp_path, vocab_size)
    store = read_store(tmp_path, "x")
    bos = vocab_size - 1
    assert store.tokens.tolist() == [bos, 1, 2, 3, bos, bos, 4]
    assert store.tokens.dtype == dtype
    assert isinstance(store.tokens, np.memmap)
    assert store.piece_offsets.tolist() == [0, 4, 5, 7]
    assert store.digests.tolist() == [[4, 5], [1, 2], [2, 3]]
    assert store.documents.tolist() == [40, 10, 20]
    assert (store.num_tokens, store.num_bytes, store.num_pieces) == (7, 14, 3)
    assert [store.piece(number).tolist() for number in range(3)] == [[bos, 1, 2, 3], [bos], [bos, 4]]
    part = store.part(1, 3)
    assert (part.tokens.tolist(), part.piece_offsets.tolist(), part.documents.tolist()) == (
        [bos, bos, 4],
        [0, 1, 3],
        [10, 20],
    )
    with pytest.raises(ValueError, match="read-only"):
        store.tokens[0] = 1


def test_stores_may_be_empty(tmp_path: Path) -> None:
    write(tmp_path, 300, runs=0)
    store = read_store(tmp_path, "x")
    assert (store.num_tokens, store.num_pieces, store.num_bytes) == (0, 0, 0)


def test_stores_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="delete"):
        read_store(tmp_path, "x")
    for name in ("tokens", "offsets.npy", "bytes.npy", "digests.npy", "documents.npy", "json"):
        write(tmp_path, 300)
        read_store(tmp_path, "x")
        path = tmp_path / f"x.{name}"
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(DataError, match="delete"):
            read_store(tmp_path, "x")
    write(tmp_path, 300)
    for table in ("bytes", "digests", "documents"):
        kept = (tmp_path / f"x.{table}.npy").read_bytes()
        np.save(tmp_path / f"x.{table}.npy", np.zeros((1, 2), np.int64))
        with pytest.raises(DataError, match="not whole"):
            read_store(tmp_path, "x")
        (tmp_path / f"x.{table}.npy").write_bytes(kept)
    read_store(tmp_path, "x")


def test_a_store_that_fails_is_not_completed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), StoreWriter(tmp_path, "x", 300):
        raise RuntimeError
    with pytest.raises(DataError):
        read_store(tmp_path, "x")
