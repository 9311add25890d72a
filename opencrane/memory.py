"""Memory of processes that load much once and then serve for weeks."""

import ctypes
import gc
import sys

# Objects more than have been freed before the youngest generation is looked at; Python's 700 is for small programs.
YOUNGEST = 20_000
# Blocks of this size are given back to the system when they are freed. Smaller ones, of which the longest lists are
# made, would take a third longer if the system had to clear them each time.
LARGE = 8 << 20
# Pools that threads allocate from; glibc makes eight for each core, and what is free in one is of no use to others.
ARENAS = 2
# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def settle_memory() -> None:
    """Take everything that is loaded now out of garbage collection; call it once, when a process is about to serve.

    Collections cost time in proportion to what is alive, and after loading that is nearly all code and settings.
    https://docs.python.org/3/library/gc.html#gc.freeze

    Where the allocator is glibc's, it is told to keep less of what was freed.
    https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, 20, 50)
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_MMAP_THRESHOLD, LARGE)
        mallopt(_M_TRIM_THRESHOLD, LARGE)
