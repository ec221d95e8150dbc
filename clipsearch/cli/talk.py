"""What commands say to the user, on stderr; stdout is for data."""

from __future__ import annotations

import sys
from collections.abc import Callable

above_the_bar: Callable[[str], None] | None = None
"""Writes a line while a progress bar stands on stderr; whoever shows one sets it."""


def say(message: str) -> None:
    """Talk to the user. What is quoted does nothing to a terminal."""
    try:
        from clipsearch.output.paths import escaped
    except (ImportError, MemoryError):  # too little memory is left even for that, and just this is to be said
        message = "\n".join(ascii(line)[1:-1] for line in message.split("\n"))
    else:
        message = "\n".join(map(escaped, message.split("\n")))
    if above_the_bar:
        above_the_bar(message)
    else:
        print(message, file=sys.stderr, flush=True)  # noqa: T201
