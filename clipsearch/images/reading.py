"""Files into memory, and work on many of them in threads: in order, with bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from clipsearch.errors import UnreadableImageError

_T = TypeVar("_T")
_R = TypeVar("_R")


def read_file(path: bytes) -> tuple[bytes, bytes]:
    """The content of a file and its hash (BLAKE2b, 16 bytes).

    Raises:
        UnreadableImageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    return content, hashlib.blake2b(content, digest_size=16).digest()


def map_in_order(work: Callable[[_T], _R], items: Iterable[_T], workers: int, ahead: int) -> Iterator[_R]:
    """`work` over `items` in threads, results in order, never more than `ahead` of them waiting in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[_R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
