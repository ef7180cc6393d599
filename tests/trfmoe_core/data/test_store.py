from pathlib import Path

import numpy as np
import pytest

from trfmoe_core.data.store import read_store, write_store
from trfmoe_core.errors import DataError

PIECES = [(np.array([1, 2, 3], np.int32), 9), (np.array([], np.int32), 1), (np.array([4], np.int32), 4)]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(259, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_stores_come_back_memory_mapped(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    write_store(tmp_path, "x", PIECES, bos_id=vocab_size - 1, vocab_size=vocab_size)
    store = read_store(tmp_path, "x")
    bos = vocab_size - 1
    assert store.tokens.tolist() == [bos, 1, 2, 3, bos, bos, 4]
    assert store.tokens.dtype == dtype
    assert isinstance(store.tokens, np.memmap)
    assert store.piece_offsets.tolist() == [0, 4, 5, 7]
    assert (store.num_tokens, store.num_bytes, store.num_pieces) == (7, 14, 3)
    with pytest.raises(ValueError, match="read-only"):
        store.tokens[0] = 1
    assert [store.pieces_within(budget) for budget in (0, 3, 4, 5, 6, 7, 99)] == [1, 1, 1, 2, 2, 3, 3]


def test_stores_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="delete"):
        read_store(tmp_path, "x")
    write_store(tmp_path, "x", PIECES, bos_id=5, vocab_size=300)
    (tmp_path / "x.tokens").write_bytes(bytes(12))
    with pytest.raises(DataError, match="not whole"):
        read_store(tmp_path, "x")
    write_store(tmp_path, "x", [], bos_id=5, vocab_size=300)
    with pytest.raises(DataError, match="delete"):
        read_store(tmp_path, "x")
