"""Robust standard streams, for a full disk, a closed pipe or a closed descriptor.

Writing to stderr never changes what a program does or how it ends. Failing to write to stdout is an error. Knows
nothing of what is written.
"""

from __future__ import annotations

import abc
import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, BinaryIO, TextIO

from clipsearch.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputAbandonedError(BrokenPipeError):
    """The reader of standard output has closed it."""


class _Wrapped(io.RawIOBase):
    """Unbuffered stream that writes to another one."""

    def __init__(self, raw: BinaryIO | io.RawIOBase, name: str) -> None:
        super().__init__()
        self._raw = raw
        self.name = name

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the other stream."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Return whether the other stream is a terminal."""
        return self._raw.isatty()

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of `data`."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[self._written(rest) :]
        return size

    @abc.abstractmethod
    def _written(self, data: memoryview) -> int:
        """Write to the other stream; return the number of bytes written, at least 1."""


class _Talk(_Wrapped):
    """Drops what cannot be written."""

    def _written(self, data: memoryview) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            return self._raw.write(data) or len(data)
        return len(data)


class _Output(_Wrapped):
    """Raises errors that name standard output."""

    def _written(self, data: memoryview) -> int:
        try:
            while (written := self._raw.write(data)) is None:  # another program has made it non-blocking
                import select

                select.select([], [self._raw], [])
        except BrokenPipeError as error:
            raise OutputAbandonedError(*error.args) from error
        except OSError as error:
            raise OutputError(f"Standard output cannot be written: {error.strerror or error}.") from error
        return written


def for_talk(raw: BinaryIO | io.RawIOBase, encoding: str) -> TextIO:
    """Return a text stream for messages that writes to `raw` at once, and never fails."""
    return io.TextIOWrapper(_Talk(raw, "<stderr>"), encoding, "backslashreplace", write_through=True)


def guard_streams() -> None:
    """Make the standard streams safe to use. Call it once, before anything else is opened.

    A closed descriptor is opened on the null device: otherwise the next file that is opened, such as an index, would
    get it, and with it what libraries write to stderr. `sys.stdin` stays None then.

    Writing to `sys.stdout` raises OutputError and OutputAbandonedError. Characters outside its encoding are escaped.
    """
    for descriptor in (0, 1, 2):
        _fill(descriptor)
    # A stream that was replaced, by a debugger for example, is not changed.
    is_plain = sys.stderr is sys.__stderr__, sys.stdout is sys.__stdout__
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (to the end)
    elif is_plain[0]:
        sys.stderr = for_talk(_raw(sys.stderr), sys.stderr.encoding)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif is_plain[1]:
        raw = _raw(sys.stdout)
        buffer, lines = io.BufferedWriter(_Output(raw, "<stdout>")), raw.isatty()
        sys.stdout = io.TextIOWrapper(buffer, sys.stdout.encoding, "backslashreplace", line_buffering=lines)


def let_output_go() -> None:
    """Redirect stdout to the null device, so that Python does not fail to flush it at exit (code 120)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _raw(stream: TextIO) -> BinaryIO:
    """Return the unbuffered stream below a text stream (with `python -u` there is no buffer)."""
    raw: BinaryIO = getattr(stream.buffer, "raw", stream.buffer)
    return raw


def _fill(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)  # usually this gives the lowest free descriptor, which is this one
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)
