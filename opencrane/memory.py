"""Memory of processes that load much once and then serve for weeks."""

import ctypes
import gc
import sys
import threading
import time

# Objects more than have been freed before the youngest generation is looked at; Python's 700 is for small programs.
YOUNGEST = 20_000
# Blocks of this size are given back to the system when they are freed. Smaller ones, of which the longest lists are
# made, would take a third longer if the system had to clear them each time.
LARGE = 8 << 20
# Pools that threads allocate from; glibc makes eight for each core, and what is free in one is of no use to others.
ARENAS = 2
# How often what was freed in between is given back. It takes some milliseconds.
TRIM_SECONDS = 30.0
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


def keep_trimming() -> None:
    """Have a thread give freed memory back to the system now and then; for a process whose requests differ in size.

    By itself glibc gives back only what is free at the top of the heap.
    https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def run() -> None:
        while True:
            time.sleep(TRIM_SECONDS)
            trim(0)

    threading.Thread(target=run, name="trim", daemon=True).start()
