"""Root's right to pass over permissions, laid down.

Run as a program, `python privileges.py ARGUMENT...` is `clipsearch ARGUMENT...` without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Within: permissions bind this thread even if it is root's (Linux; see capabilities(7)). Else skips the test."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        import pytest  # which takes a program long

        pytest.skip("permissions do not bind root, and only on Linux can it lay its rights down")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    libc.capget(header, sets)
    effective = sets[0]
    sets[0] = effective & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = effective
        libc.capset(header, sets)


if __name__ == "__main__":
    with without_privileges():
        runpy.run_module("clipsearch", run_name="__main__", alter_sys=True)
