"""Delay of the signals that end a program, while a change is half done. Knows nothing of the change."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals that end a program."""


@contextmanager
def shielded() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and SIGHUP until the end of the block.

    A second signal ends the process at once, as `kill -9` would. Signals that would do that anyway, or that are
    ignored, are not changed. In other threads than the main one this does nothing, since Python delivers no signals
    there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}
    held: list[int] = []
    over = False

    def hold(number: int, frame: FrameType | None) -> None:
        if over:  # another signal came while the handlers were restored
            before[number](number, frame)
            return
        if held:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        held.append(number)

    try:
        for number in before:
            signal.signal(number, hold)
        yield
    finally:
        over = True
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
