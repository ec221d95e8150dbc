"""SQL that gives stored paths of one index the form that they have in another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clipsearch.index.stored_paths import ABSOLUTE
from clipsearch.system.paths import inside


class Moved(NamedTuple):
    """A folder (absolute) that has another path in the new index."""

    old: bytes
    new: bytes


def path_in_sql(own: bytes, new: bytes, moved: Sequence[Moved]) -> Iterator[str]:
    """Yield, step by step, SQL that turns a stored path of an index in the folder `own` into one of one in `new`."""
    if own == new and not moved:
        return
    absolute = " OR ".join(map(_starts, ABSOLUTE))
    yield (
        f"CASE WHEN {absolute} THEN path WHEN path = x'2e' THEN {_literal(own)} "
        f"ELSE CAST({_literal(inside(own))} || path AS BLOB) END"
    )
    if moved:
        cases = " ".join(
            f"WHEN path = {_literal(one.old)} THEN {_literal(one.new)} WHEN {_begins(one.old)} "
            f"THEN CAST({_literal(inside(one.new))} || substr(path, {len(inside(one.old)) + 1}) AS BLOB)"
            for one in moved
        )
        yield f"CASE {cases} ELSE path END"
    yield (
        f"CASE WHEN path = {_literal(new)} THEN x'2e' "
        f"WHEN {_begins(new)} THEN substr(path, {len(inside(new)) + 1}) ELSE path END"
    )


def _literal(content: bytes) -> str:
    return f"x'{content.hex()}'"


def _begins(folder: bytes) -> str:
    """Return the SQL condition that a path lies in a folder."""
    return _starts(inside(folder))


def _starts(start: bytes) -> str:
    """Return the SQL condition that a path starts with some bytes, the last of them less than 255.

    Comparing with both ends of the range needs no copy of the path, as `substr` does.
    """
    end = start[:-1] + bytes([start[-1] + 1])
    return f"(path >= {_literal(start)} AND path < {_literal(end)})"
