"""Names of devices, as users give them, and the number of batches that a CPU computes at a time.

Knows nothing of which devices exist on this machine, and so needs no torch.
"""

from __future__ import annotations

import re

from clipsearch.errors import DeviceError

KNOWN = ("auto", "cpu", "cuda", "mps")
"""Names of devices; `cuda:N` is accepted as well, for the N-th of several GPUs, counted from 0."""
CALLS_ON_CPU = 8
"""Largest number of batches that are computed at a time on a CPU; with more cores, each batch gets several."""
_NAME = re.compile(r"auto|cpu|cuda(:\d{1,4})?|mps", re.ASCII)


def check_device(name: str) -> str:
    """Return `name` if it is a valid name of a device, whether this machine has the device or not.

    Raises:
        DeviceError: `name` is not a name of a device.
    """
    if _NAME.fullmatch(name):
        return name
    import difflib  # only for a mistake

    lower = name.lower()
    close = ["cuda"] if lower.startswith("gpu") else difflib.get_close_matches(lower, KNOWN, n=1, cutoff=0.7)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise DeviceError(
        f"Unknown device {name!r}.{hint} Choose one of: {', '.join(KNOWN)}; or cuda:0, cuda:1 and so on for one of "
        "several GPUs."
    )
