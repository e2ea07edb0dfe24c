"""Main memory that stays with the process."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed() -> None:
    """Have glibc keep what tensors free, for a model that computes on a CPU.

    By default each large block goes back to the kernel when it is freed, and its pages are faulted in and zeroed again
    at the next tensor: a quarter of the time of a training in a virtual machine. Where the C library has no mallopt,
    nothing happens.
    """
    if sys.platform == "linux" and (tune := getattr(ctypes.CDLL(None), "mallopt", None)):
        tune(M_MMAP_MAX, 0)
        tune(M_TRIM_THRESHOLD, 2**31 - 1)
