"""Whether two indexes hold the same roots, options, records, vectors and regions, in whatever order their rows are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from clipsearch.index.format import ARRAYS, BOXES, DATABASE, EMBEDDINGS, REGIONS

_RECORD = "path, size, mtime_ns, hash, width, height, taken_at, error, ctime_ns, inode, date_source, damage"


def assert_same(one: Path, other: Path) -> None:
    """Both lie in one folder, since an index has its paths relative to that. Vectors may differ in the last bit."""
    (facts, vectors), (other_facts, other_vectors) = _content(one), _content(other)
    assert facts == other_facts
    assert vectors.keys() == other_vectors.keys()
    for key, vector in vectors.items():
        np.testing.assert_allclose(vector, other_vectors[key], atol=2e-4)


def _content(folder: Path) -> tuple[list[Any], dict[Any, Any]]:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        records = database.execute(f"SELECT {_RECORD} FROM images ORDER BY path").fetchall()  # noqa: S608
        roots = database.execute("SELECT * FROM roots ORDER BY path").fetchall()
        meta = dict(database.execute("SELECT key, value FROM meta WHERE key != 'last_run'"))
        rows = {row: path for path, row in database.execute("SELECT path, row FROM images WHERE row IS NOT NULL")}
    arrays = {kind: np.load(folder / kind.name).astype(np.float32) for kind in ARRAYS if (folder / kind.name).exists()}
    vectors: dict[Any, Any] = {path: arrays[EMBEDDINGS][row] for row, path in rows.items()}
    if BOXES in arrays:
        for (row, *edges), vector in zip(arrays[BOXES].tolist(), arrays[REGIONS], strict=True):
            if row in rows:
                vectors[(rows[int(row)], *edges)] = vector
    meta.pop("regions", None)  # how many rows there are, also of what is gone
    return [records, roots, meta], vectors
