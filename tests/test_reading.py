"""Reading files, and many of them in threads."""

from __future__ import annotations

from clipsearch.images.reading import map_in_order


def test_map_in_order_keeps_order_and_bounds_what_waits() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        return i * i

    results = map_in_order(work, range(100), workers=4, ahead=8)
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert len(started) <= 10 + 8
    assert list(results) == [i * i for i in range(10, 100)]
