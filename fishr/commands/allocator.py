"""Memory that a training step frees is kept for the next one."""

import ctypes
import os
import platform

# mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let glibc reuse large freed blocks instead of returning them to the kernel; call it before torch loads."""
    # A full-batch step on a CPU allocates the same large activations again. Fresh pages cost more than the arithmetic
    # on them: on Colored MNIST's shapes, a step takes 1.3 to 1.6 times as long without this. The process keeps the
    # largest amount of memory that it ever used.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
