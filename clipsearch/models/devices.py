"""Names of devices, as users give them, and how much they take at a time.

Knows nothing of which are there, and so needs no torch.
"""

from __future__ import annotations

import re

from clipsearch.errors import DeviceError

KNOWN = ("auto", "cpu", "cuda", "mps")
"""And `cuda:N` for the N-th of several GPUs, from 0 on."""
CALLS_ON_CPU = 8
"""Number of batches that are computed at a time on a CPU, at most; with more cores, each gets several."""
_NAME = re.compile(r"auto|cpu|cuda(:\d{1,4})?|mps", re.ASCII)


def check_device(name: str) -> str:
    """`name`, if it is one that a device can have.

    Raises:
        DeviceError: it means nothing.
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
