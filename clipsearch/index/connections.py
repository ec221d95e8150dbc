"""Connections to the database of an index: one for each reading thread, since a transaction belongs to a connection."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from clipsearch.errors import IndexWriteError, InputError
from clipsearch.index.format import damaged, guarded, missing_index

_COUNTER_BEGINS, _COUNTER_ENDS = 24, 28


def connect(path: Path, mode: str, busy_seconds: float, *, shared: bool = False) -> sqlite3.Connection:
    """Open a database file.

    Args:
        path: the file.
        mode: SQLite's mode: ro, rw or rwc.
        busy_seconds: how long a statement waits for a lock of another connection.
        shared: whether threads other than the current one may use the connection.

    Raises:
        IndexWriteError: the file cannot be opened in this mode.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with guarded(path.parent):
        return sqlite3.connect(uri, uri=True, timeout=busy_seconds, check_same_thread=not shared)


class ChangeCounter:
    """Reads SQLite's counter of the transactions that changed a database file: bytes 24 to 27 of its header.

    It is right without a write-ahead log, which no index has (https://www.sqlite.org/fileformat2.html, section 1.3.7).

    The file stays open. When a process closes a file, POSIX gives up all locks that it has on it, those of SQLite's
    connections included (https://www.sqlite.org/howtocorrupt.html, section 2.2): a writer could then change what a
    snapshot is reading.
    """

    def __init__(self, path: Path) -> None:
        """Read the counter of a file, which need not be there yet. Threads may share it."""
        self._path = path
        self._file: BinaryIO | None = None
        self._reading = threading.Lock()

    def read(self) -> int:
        """Return the counter.

        Raises:
            IndexMissingError: there is no such file (any more).
            IndexDamagedError: it is too short.
            IndexWriteError: it cannot be read.
        """
        try:
            with guarded(self._path.parent), self._reading:
                if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                    self._close()
                    self._file = self._path.open("rb", buffering=0)
                self._file.seek(0)
                header = self._file.read(_COUNTER_ENDS)
        except IndexWriteError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise missing_index(self._path.parent) from error
            raise
        if len(header) < _COUNTER_ENDS:
            raise damaged(self._path.parent, f"{self._path.name} is empty")
        return int.from_bytes(header[_COUNTER_BEGINS:], "big")

    def close(self) -> None:
        """Close the file; only after all connections to it."""
        with self._reading:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Connections:
    """The connections of one reader: one for each thread, opened on first use."""

    def __init__(self, folder: Path, make: Callable[[], sqlite3.Connection]) -> None:
        """Use `make` to open connections, each of which another thread may close. `folder` is that of the index."""
        self._folder = folder
        self._make = make
        self._of: dict[threading.Thread, sqlite3.Connection] = {}
        self._changing = threading.Lock()
        self._closed = False

    def mine(self) -> sqlite3.Connection:
        """Return the connection of the current thread.

        Raises:
            InputError: the reader has been closed.
        """
        thread = threading.current_thread()
        known = self._of.get(thread)
        return self._connected(thread) if known is None else known

    def _connected(self, thread: threading.Thread) -> sqlite3.Connection:
        with self._changing:
            if self._closed:
                raise InputError(f"The index in {self._folder} has been closed. Open it again.")
            for gone in [other for other in self._of if not other.is_alive()]:
                self._of.pop(gone).close()
            self._of[thread] = self._make()
            return self._of[thread]

    def close(self) -> None:
        """Close all connections."""
        with self._changing:
            self._closed = True
            while self._of:
                self._of.popitem()[1].close()
