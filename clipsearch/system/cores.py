"""Number of processor cores that this process may use. Imports nothing heavy, since queries need it."""

from __future__ import annotations

import os


def available() -> int:
    """Return the number of cores for this process, which taskset or a container may limit below the machine's."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
