"""Messages to the user on stderr; stdout is for data."""

from __future__ import annotations

import sys
from collections.abc import Callable

above_the_bar: Callable[[str], None] | None = None
"""Writes a line above a progress bar. A bar sets it while it is shown."""


def say(message: str) -> None:
    """Write a message to stderr, with control characters escaped."""
    try:
        from clipsearch.output.paths import escaped
    except (ImportError, MemoryError):  # memory may be too short for the import, which is what the message says
        message = "\n".join(ascii(line)[1:-1] for line in message.split("\n"))
    else:
        message = "\n".join(map(escaped, message.split("\n")))
    if above_the_bar:
        above_the_bar(message)
    else:
        print(message, file=sys.stderr, flush=True)  # noqa: T201
