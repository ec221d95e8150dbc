"""Numbers of the rows that fulfil a condition, from the database into NumPy.

SQLite joins the numbers, and NumPy parses them: to fetch a row takes several times as long as to find it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsearch.index.stored_paths import Interval, divided, in_sql

_JOINED = 131_072
"""About the largest number of rows that SQLite joins at a time."""


def joined_rows(
    sql: Callable[[str, Sequence[object]], list[Any]],
    total: int,
    intervals: Iterable[Interval],
    condition: str,
    values: Sequence[object],
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield, some at a time, rows of the table `images` that fulfil an SQL condition.

    Args:
        sql: asks the database.
        total: the number of all rows.
        intervals: those of stored paths in which to look; they do not overlap.
        condition: SQL.
        values: those of the condition.
    """
    # The paths of rows spread evenly divide the table into parts that fit into memory, however paths are named.
    spread = json.dumps([*range(0, total, _JOINED)])
    edges = sql("SELECT path FROM images WHERE row IN (SELECT value FROM json_each(?)) ORDER BY path", [spread])
    for interval in intervals:
        for part in divided(interval, (path for (path,) in edges)):
            where, more = in_sql(part)
            ((joined,),) = sql(
                f"SELECT group_concat(row) FROM images WHERE {where} AND {condition}",  # noqa: S608  (our own words)
                (*more, *values),
            )
            if joined:
                yield np.fromstring(joined, np.int64, sep=",")
