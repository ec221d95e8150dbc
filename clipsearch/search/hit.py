"""One image that a query found: a record of the index with its place and its score."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from clipsearch.index.filters import local_time
from clipsearch.index.format import Record


class Hit(NamedTuple):
    """One image that a query found."""

    rank: int
    """1 is the best."""
    score: float
    """Cosine of query and image, in [-1, 1]."""
    confidence: float | None
    """How sure it is that the image shows what the query says, in [0, 1] (see `confidence`); None for queries with
    images, which cannot be compared with words."""
    path_bytes: bytes
    """Absolute, with the file system's own bytes; `path` is the same for everyday use."""
    width: int | None
    """Pixels, upright."""
    height: int | None
    size: int
    """Of the file, in bytes."""
    mtime_ns: int
    """When the file was last changed, in ns since 1970."""
    taken_at: str | None
    """ISO 8601 local time from EXIF, XMP or the file's name, whichever tells first; None if none does."""
    others: int | None = None
    """With `distinct`, for how many other images it stands, of all that fulfil the filters; else None."""
    date_source: str = "file"
    """Where `date` is from: "exif", "xmp", "name" (of the file), or "file" (when it was last changed)."""

    @classmethod
    def of(
        cls, record: Record, rank: int, score: float, confidence: float | None = None, others: int | None = None
    ) -> Hit:
        """What the index records of an image, and how well it fits."""
        return cls(
            rank=rank,
            score=score,
            confidence=confidence,
            path_bytes=record.path,
            width=record.width,
            height=record.height,
            size=record.size,
            mtime_ns=record.mtime_ns,
            taken_at=record.taken_at,
            others=others,
            date_source=record.date_source or "file",
        )

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Make a dictionary of it.

        Returns:
            Its fields by the names that they have in the JSON of the command line; numbers are not rounded, and
            `path` is absolute.
        """
        fields: dict[str, str | int | float | None] = {
            "rank": self.rank,
            "score": self.score,
            "confidence": self.confidence,
            "path": str(self.path),
            "width": self.width,
            "height": self.height,
            "bytes": self.size,
            "date": self.date,
            "date_source": self.date_source,
        }
        return fields if self.others is None else fields | {"others": self.others}

    @property
    def path(self) -> Path:
        """Where the image is; absolute."""
        return Path(os.fsdecode(self.path_bytes))

    @property
    def date(self) -> str:
        """When it was taken, or else last changed: ISO 8601 local time, to the second."""
        return self.taken_at or local_time(self.mtime_ns)
