"""The three standard streams, whatever they lead to: a full disk, a closed pipe, nothing at all.

What a program says on stderr must never change what it does or how it ends; what it has to tell on stdout must be told,
or its end has to be an error. Knows nothing of what is written.
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
    """Whoever read standard output has seen enough."""


class _Wrapped(io.RawIOBase):
    """A stream without a buffer that writes to another one."""

    def __init__(self, raw: BinaryIO | io.RawIOBase, name: str) -> None:
        super().__init__()
        self._raw = raw
        self.name = name

    def writable(self) -> bool:
        """True, whatever it leads to."""
        return True

    def fileno(self) -> int:
        """Of the other stream."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
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
        """How many bytes the other stream has taken; 1 or more."""


class _Talk(_Wrapped):
    """Drops what the other stream does not take."""

    def _written(self, data: memoryview) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: somebody closed it
            return self._raw.write(data) or len(data)
        return len(data)


class _Output(_Wrapped):
    """Says by its errors that it was standard output that failed."""

    def _written(self, data: memoryview) -> int:
        try:
            while (written := self._raw.write(data)) is None:  # another program has it not wait
                import select

                select.select([], [self._raw], [])
        except BrokenPipeError as error:
            raise OutputAbandonedError(*error.args) from error
        except OSError as error:
            raise OutputError(f"Standard output cannot be written: {error.strerror or error}.") from error
        return written


def for_talk(raw: BinaryIO | io.RawIOBase, encoding: str) -> TextIO:
    """A stream for talk that writes to `raw` at once, and never fails."""
    return io.TextIOWrapper(_Talk(raw, "<stderr>"), encoding, "backslashreplace", write_through=True)


def guard_streams() -> None:
    """Make all three safe to use. To be called once, before anything else is opened.

    Where one is closed, its descriptor leads nowhere from now on: else the next file that is opened, an index say,
    would get it, and with it what libraries write to stderr. `sys.stdin` stays None then, since there is nothing to
    read.

    Writing to `sys.stdout` raises OutputError and OutputAbandonedError, and no text is beyond its encoding.
    """
    for descriptor in (0, 1, 2):
        _fill(descriptor)
    # What a debugger, say, has put in their place stays as it is.
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
    """Lead stdout nowhere: else Python would try to write what is left of it while it ends, and exit with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _raw(stream: TextIO) -> BinaryIO:
    """What is below its buffer, if it has one (not so with `python -u`)."""
    raw: BinaryIO = getattr(stream.buffer, "raw", stream.buffer)
    return raw


def _fill(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)
