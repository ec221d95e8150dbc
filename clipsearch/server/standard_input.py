"""Standard input that a signal ends, for a server that waits for it in a thread which nothing else could end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

from clipsearch.system.interrupts import ENDING

_PART = 1 << 16
"""Bytes that are passed on at a time."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end `sys.stdin` within this context, and take effect at its end."""
    ours, theirs = socket.socketpair()
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        with suppress(OSError):  # a second signal
            ours.shutdown(socket.SHUT_WR)

    def pass_on() -> None:
        with suppress(OSError):  # a signal came, or the server has ended
            while part := os.read(0, _PART):
                ours.sendall(part)
            ours.shutdown(socket.SHUT_WR)

    with ours, theirs, theirs.makefile("r", encoding="utf-8") as ended, _handled(end), _replaced(ended):
        threading.Thread(target=pass_on, name="input", daemon=True).start()
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: old for number in ENDING if callable(old := signal.getsignal(number))}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _replaced(stream: TextIO) -> Iterator[None]:
    before, sys.stdin = sys.stdin, stream
    try:
        yield
    finally:
        sys.stdin = before
