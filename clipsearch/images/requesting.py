"""Requests to stores and web servers: many at a time, repeated after faults that pass, given up after too many.

fsspec owns the thread in which they all run. Messages are our own words, since those of libraries may name addresses
with signatures in them.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from clipsearch.errors import InputError, StoreError
from clipsearch.images.files import UnreachableError

AT_ONCE = 32
"""Number of threads that read from stores, and so of requests at a time."""
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0
"""Seconds: after the n-th fault, a time between 0 and FIRST_WAIT * 2**n is waited, but no more than LONGEST_WAIT."""
_MOST_SECONDS = 900
"""The longest time for one try, with which a server that sends a byte now and then would hold up everything."""
_MOST_LOST = 8
"""After so many files in succession that could not be had, the server is taken for gone."""

_REST = 60.0
"""Seconds after which it is asked again all the same, by a process that is still there then."""

_T = TypeVar("_T")


class PassingError(Exception):
    """A request failed in a way that may pass: the server is overloaded, or a connection broke. The text says why."""


class Server:
    """What one store or web server owes us."""

    def __init__(self, name: str) -> None:
        self.name = name
        """For messages."""
        self._gone, self._until = "", 0.0
        """Why it is not asked any more, and until when."""
        self._lost = 0
        self._tries, self._first_wait = tries(), FIRST_WAIT

    def gone(self) -> str | None:
        """Return why the server is not asked for the time being; None if it is."""
        return self._gone if self._gone and time.monotonic() < self._until else None

    async def ask(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Return what `attempt` returns, after as many tries as it takes.

        Raises:
            UnreachableError: it did not succeed in so many tries, or the server is taken for gone.
        """
        for number in range(self._tries):
            if (gone := self.gone()) is not None:
                raise UnreachableError(gone)
            try:
                async with asyncio.timeout(_MOST_SECONDS):
                    result = await attempt()
            except (PassingError, TimeoutError) as error:
                why = str(error) or "it took too long"
            else:
                self._lost = 0
                return result
            if number + 1 < self._tries:
                longest = min(LONGEST_WAIT, self._first_wait * 2**number)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311  (so that not all come back at once)
        self._lost += 1
        said = f"{why}, {self._tries} times" if self._tries > 1 else why
        if self._lost >= _MOST_LOST:
            self._gone, self._until = f"{self.name} does not answer any more ({said})", time.monotonic() + _REST
        raise UnreachableError(f"it could not be had now: {said}")


def in_background(coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
    """Begin a coroutine in the thread of fsspec.

    Raises:
        StoreError: the packages are not installed.
    """
    try:
        from fsspec.asyn import get_loop
    except ImportError as error:
        coroutine.close()
        raise not_installed() from error
    with _lock:
        future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
        _running.add(future)
    future.add_done_callback(_done)
    return future


def result_of(future: Future[_T]) -> _T:
    """Wait for a coroutine that was begun; it is ended if the wait is interrupted.

    Raises:
        StoreError: another thread ended it with `abandon`.
    """
    try:
        return future.result()
    except CancelledError as error:
        raise StoreError("The request was given up.") from error
    finally:
        future.cancel()


def wait_for(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in the thread of fsspec, as `in_background` and `result_of`."""
    return result_of(in_background(coroutine))


def abandon() -> None:
    """End all requests, so that the threads that wait for them end soon."""
    with _lock:
        running = tuple(_running)
    for future in running:
        future.cancel()


def timeout() -> float:
    """Return for how many seconds a server may be silent (`CLIPSEARCH_STORE_TIMEOUT`).

    Raises:
        InputError: the environment has no number.
    """
    return _setting("CLIPSEARCH_STORE_TIMEOUT", 30, float)


def tries() -> int:
    """Return how often a request is made before it is given up (`CLIPSEARCH_STORE_TRIES`).

    Raises:
        InputError: the environment has no number.
    """
    return _setting("CLIPSEARCH_STORE_TRIES", 6, int)


def not_installed() -> StoreError:
    """Make the error for a machine without the packages."""
    return StoreError("Addresses of object stores and web servers need packages that are not installed.", hint="remote")


def _setting(name: str, default: int, kind: Callable[[str], _T]) -> _T:
    text = os.environ.get(name) or str(default)
    with suppress(ValueError):
        value = kind(text)
        if 0 < float(text) < float("inf"):
            return value
    raise InputError(f"{name} must be a number above 0, not {text!r}.")


_running: set[Future[Any]] = set()
_lock = threading.Lock()


def _done(future: Future[Any]) -> None:
    with _lock:
        _running.discard(future)
