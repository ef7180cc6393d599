"""How the C library keeps and returns freed memory, and the size of its pages.

Fresh memory costs more than what is written to it: the system clears it and maps it page by page. On an AMD EPYC a copy
to fresh memory runs at 2.4 GB/s with pages of 4 KiB and at 10 GB/s with pages of 2 MiB. Linux gives the large ones to
who asks for them, unless its administrator has turned them off. Asking for them for all of torch's tensors makes a
training step slower, because most of its memory is not fresh. All of this needs glibc; elsewhere nothing happens.
"""

import ctypes
import mmap
import sys
from functools import cache

LARGEST_HEAP_BLOCK_BYTES = 32 << 20
"""The most that glibc accepts; it still maps larger blocks one by one."""

MAX_FREE_BYTES = 1 << 30
"""Free memory at the end of the heap that stays with the process."""

LARGE_PAGE_BYTES = 2 << 20
"""Size of a large page on x86-64 and on most machines with ARM; where it is another, the system rounds."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keeps up to `MAX_FREE_BYTES` of freed memory in this process, for the tensors of the next training step.

    By default glibc returns large freed blocks to the system, which hands them out again page by page and zeroed: in a
    training step of a small model that costs up to a tenth of the processor time.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, MAX_FREE_BYTES)


def advise_large_pages(address: int, num_bytes: int) -> None:
    """Asks for large pages for memory that is not written yet. The system may decline; then nothing changes."""
    library = _glibc()
    if library is None or num_bytes < LARGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (address + num_bytes - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)


def trim() -> None:
    """Returns all freed memory to the system, also that which lies between blocks in use."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
