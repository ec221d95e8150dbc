"""What commands say to the user, on stderr; stdout is for data."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Talk to the user. What is quoted does nothing to a terminal."""
    from clipsearch.output.paths import escaped

    print("\n".join(map(escaped, message.split("\n"))), file=sys.stderr, flush=True)  # noqa: T201
