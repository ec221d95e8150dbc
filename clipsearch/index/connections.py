"""Connections to an index's database: one for each thread that reads, since a transaction belongs to a connection."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from clipsearch.errors import InputError
from clipsearch.index.format import guarded


def connect(path: Path, mode: str, busy_seconds: float, *, shared: bool = False) -> sqlite3.Connection:
    """Open a database file; `mode` is SQLite's: ro, rw or rwc. What is `shared` may be used by more than one thread.

    Raises:
        IndexWriteError: it cannot be opened so.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with guarded(path.parent):
        return sqlite3.connect(uri, uri=True, timeout=busy_seconds, check_same_thread=not shared)


class Connections:
    """The connections of one reader, by thread. Each is made when its thread first asks."""

    def __init__(self, folder: Path, make: Callable[[], sqlite3.Connection]) -> None:
        """`folder` is the index; what `make` gives back may be closed by another thread."""
        self._folder = folder
        self._make = make
        self._of: dict[threading.Thread, sqlite3.Connection] = {}
        self._changing = threading.Lock()
        self._closed = False

    def mine(self) -> sqlite3.Connection:
        """The one of this thread.

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
        """Close all of them."""
        with self._changing:
            self._closed = True
            while self._of:
                self._of.popitem()[1].close()
