"""Hold back the signals that end a program while something is half done. Knows nothing of what that is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def shielded() -> Iterator[None]:
    """Within: Ctrl-C and its like have to wait; they are delivered when the block is over.

    A second one does not wait: it ends the process at once, as `kill -9` would. Signals that would do that anyway, or
    that are ignored, are left alone. Outside of the main thread there is nothing to do: Python delivers none there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in _ENDING if callable(handler := signal.getsignal(number))}
    held: list[int] = []
    over = False

    def hold(number: int, frame: FrameType | None) -> None:
        if over:  # a signal that came while handlers were put back has kept this one in place
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
