"""How many processor cores this process may use. Imports nothing heavy, since queries ask too."""

from __future__ import annotations

import os


def available() -> int:
    """Cores that the system lets this process run on, which can be fewer than the machine has (taskset, containers)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
