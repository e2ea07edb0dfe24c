"""Freed memory stays with the process."""

import subprocess
import sys

# mallinfo2(3): ten counts, the fourth of which is how many blocks are mapped one by one.
SCRIPT = """
import ctypes
from mothertongue import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
fields = [(str(n), ctypes.c_size_t) for n in range(10)]
libc.mallinfo2.restype = type("Counts", (ctypes.Structure,), {"_fields_": fields})

def mapped():
    before = getattr(libc.mallinfo2(), "3")
    libc.malloc(64 * 2**20)
    return getattr(libc.mallinfo2(), "3") - before

first = mapped()
memory.keep_freed()
print(first, mapped())
"""


def test_large_blocks_come_from_the_heap() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
