"""Memory that was freed goes back to the system, in a process of its own."""

import ctypes
import subprocess
import sys

import pytest

# Every other block is freed, so that none of it is at the top of the heap; then it watches what is resident, in KiB.
HOLES = """
import re, time
from opencrane import memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])

memory.settle_memory()
blocks = [bytearray(b"x" * 40_000) for _ in range(4_000)]
full = resident()
del blocks[::2]
memory.TRIM_SECONDS = 0.01
memory.keep_trimming()
deadline = time.monotonic() + 30
while resident() > full - 60_000 and time.monotonic() < deadline:
    time.sleep(0.01)
print(full - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can be told to")
def test_holes_in_the_heap_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 60_000
