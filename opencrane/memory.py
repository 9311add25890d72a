"""Garbage collection for processes that load much once and then serve for weeks."""

import gc

# Objects more than have been freed before the youngest generation is looked at; Python's 700 is for small programs.
YOUNGEST = 20_000


def settle_memory() -> None:
    """Take everything that is loaded now out of garbage collection; call it once, when a process is about to serve.

    Collections cost time in proportion to what is alive, and after loading that is nearly all code and settings.
    https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, 20, 50)
