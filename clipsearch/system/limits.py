"""Checks of a process's resource limits (ulimit) before a library hits them.

OpenBLAS, OpenMP and torch raise no error if they get no memory or no thread, but end or abort the process, some with
exit code 1, which means something else here.
"""

from __future__ import annotations

import mmap
import threading


def check_memory(needed: int) -> None:
    """Check that `needed` bytes of address space are left, if there is a limit.

    Raises:
        MemoryError: fewer are left.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limits
        return
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if all(limit == resource.RLIM_INFINITY for limit in limits):
        return
    try:
        mmap.mmap(-1, needed, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        raise MemoryError(f"no {needed} bytes are left") from error


def check_threads(needed: int) -> None:
    """Check that `needed` threads can be started. It takes some ten microseconds for each.

    Raises:
        RuntimeError: they cannot.
    """
    over = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=over.wait)
            thread.start()
            threads.append(thread)
    finally:
        over.set()
        for thread in threads:
            thread.join()
