"""Notices of changed files: from the operating system, by watchfiles, or at fixed times, where no system notices them.

watchfiles is an optional package that only this module imports, when it is used.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

from clipsearch.errors import InputError
from clipsearch.system.addresses import is_address

_STEP_MS, _TIMEOUT_MS, _GROUP_MS = 100, 200, 500
"""How often watchfiles looks for events and for the end of the watch, and how long it collects events at most."""


class Events(Protocol):
    """A source of notices. All paths are absolute."""

    def watch(self, places: Sequence[bytes]) -> None:
        """Watch these folders and files, which exist, and addresses, instead of those watched before.

        Raises:
            InputError: nobody gives notice of what changes there.
        """

    def wait(self, seconds: float) -> set[bytes]:
        """Wait until something changes, for up to `seconds`, and return the paths that changed since the last call.

        The path of a watched folder means that anything in it may have changed.

        Raises:
            InputError: the system cannot watch the folders.
        """

    def close(self) -> None:
        """Stop watching."""


class SystemEvents:
    """Notices of the operating system."""

    def __init__(self) -> None:
        """Raise an InputError if watchfiles is not installed."""
        if find_spec("watchfiles") is None:
            raise InputError("Folders are watched by watchfiles, which is not installed.", hint="install-watch")
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._woken = threading.Condition()
        self._changed: set[bytes] = set()
        self._error: InputError | None = None

    def watch(self, places: Sequence[bytes]) -> None:
        """Watch these folders and files instead of those watched before; return when that has begun."""
        for place in filter(is_address, places):
            raise InputError(f"Nothing says when something changes at {os.fsdecode(place)}.", hint="watch-folders")
        self.close()
        if not places:
            return
        ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._listen, args=(list(places), self._stop, ready.set), name="watch", daemon=True
        )
        self._thread.start()
        ready.wait()

    def wait(self, seconds: float) -> set[bytes]:
        """Wait until something changes, for up to `seconds`; return the paths that changed since the last call."""
        with self._woken:
            self._woken.wait_for(lambda: self._changed or self._error, timeout=seconds)
            if self._error:
                raise self._error
            changed, self._changed = self._changed, set()
            return changed

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _listen(self, places: list[bytes], stop: threading.Event, ready: Callable[[], object]) -> None:
        """Collect events until `stop` is set. This is a thread, because signals must not end in watchfiles."""
        from watchfiles import watch

        try:
            for changes in watch(
                *map(os.fsdecode, places),
                watch_filter=None,
                debounce=_GROUP_MS,
                step=_STEP_MS,
                rust_timeout=_TIMEOUT_MS,
                yield_on_timeout=True,
                stop_event=stop,
                ignore_permission_denied=True,
                force_polling=False,
            ):
                ready()
                if changes:
                    with self._woken:
                        self._changed.update(os.fsencode(path) for _, path in changes)
                        self._woken.notify_all()
        except FileNotFoundError:
            pass  # a place has gone meanwhile, which its owner finds out
        except (OSError, RuntimeError, UnicodeError) as error:  # too many folders, no inotify, a name that is no text
            with self._woken:
                self._error = InputError(f"The system does not watch these folders: {error}.", hint="poll")
                self._woken.notify_all()
        finally:
            ready()


class Polling:
    """Notices at fixed times that anything may have changed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._places: set[bytes] = set()
        self._due = time.monotonic() + seconds

    def watch(self, places: Sequence[bytes]) -> None:
        """Name these folders and files instead of those before."""
        self._places = set(places)

    def wait(self, seconds: float) -> set[bytes]:
        """Wait for up to `seconds`; return all places if it is time to search them."""
        time.sleep(max(0.0, min(seconds, self._due - time.monotonic())))
        if time.monotonic() < self._due:
            return set()
        self._due = time.monotonic() + self._seconds
        return self._places

    def close(self) -> None:
        """Do nothing."""
