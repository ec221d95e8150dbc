"""Work on many items in threads: results in order, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MOST_BYTES = 256 * 2**20

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_in_order(
    work: Callable[[_T], _R],
    items: Iterable[_T],
    workers: int,
    ahead: int,
    size: Callable[[_T], int] = lambda _: 0,
    *,
    promptly: bool = False,
    abandon: Callable[[], None] = lambda: None,
) -> Generator[_R, None, None]:
    """Yield `work(item)` of every item, in the order of the items, computed in threads.

    Close the generator if it is not read to its end. An exception of `work` is raised in place of its result.

    Args:
        work: Called in several threads at once.
        items: Read in the caller's thread, as results are taken.
        workers: Number of threads.
        ahead: Number of items that are begun before the first result is given, and the most whose results wait.
        size: Bytes of memory that an item takes. At most 256 MB wait, or one item that is larger.
        abandon: Called if the rest is not wanted, before waiting for the threads: it may have them end sooner.
        promptly: Give a result that is there as soon as another item is read, instead of beginning `ahead` items first.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="map") as pool:
        waiting: deque[tuple[Future[_R], int]] = deque()
        total = 0
        try:
            for item in items:
                weight = size(item)
                while waiting and (
                    len(waiting) >= ahead or total + weight > _MOST_BYTES or (promptly and waiting[0][0].done())
                ):
                    future, done = waiting.popleft()
                    total -= done
                    yield future.result()
                waiting.append((pool.submit(work, item), weight))
                total += weight
            while waiting:
                yield waiting.popleft()[0].result()
        except BaseException:  # also that of a generator that is closed early
            for future, _ in waiting:
                future.cancel()
            abandon()
            raise
