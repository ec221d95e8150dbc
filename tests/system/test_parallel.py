"""Work on many items in threads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from clipsearch.system.parallel import map_in_order


def test_map_in_order_keeps_order_and_bounds_what_waits() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        return i * i

    results = map_in_order(work, range(100), workers=4, ahead=8)
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert len(started) <= 10 + 8
    assert list(results) == [i * i for i in range(10, 100)]


@pytest.mark.parametrize("promptly", [True, False])
def test_results_come_before_all_items_are_there_only_if_that_is_asked_for(*, promptly: bool) -> None:
    asked: list[int] = []

    def slow() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number
            time.sleep(0.02)

    results = map_in_order(abs, slow(), workers=2, ahead=50, promptly=promptly)
    assert next(results) == 0
    assert (len(asked) < 20) == promptly
    assert list(results) == list(range(1, 20))
