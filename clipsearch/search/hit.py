"""A hit: the record of an image that a query found, with its rank and its score."""

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
    """Probability that the image shows what the query describes, in [0, 1] (see `search.confidence`); None for queries
    with images, which cannot be compared with neutral prompts."""
    path_bytes: bytes
    """Absolute path in the bytes of the file system; `path` is the same as a `Path`."""
    width: int | None
    """Width in pixels, after the rotation that the file asks for."""
    height: int | None
    """Height in pixels, after the rotation that the file asks for."""
    size: int
    """Size of the file in bytes."""
    mtime_ns: int
    """When the file was last changed, in ns since 1970."""
    taken_at: str | None
    """When the image was taken: ISO 8601 local time from EXIF, else XMP, else the file's name; None if none has it."""
    others: int | None = None
    """With `distinct`, the number of other images that this one represents, of all that fulfil the filters; else
    None."""
    date_source: str = "file"
    """The source of `date`: "exif", "xmp", "name" (of the file), or "file" (the time of its last change)."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom edge of the region that fits best, in pixels of the upright image; None if the image
    as a whole fits best, or no region took part."""
    among_regions: bool = False
    """Whether regions took part in the search."""
    row: int | None = None
    """The row of the image in the matrix of the commit that was searched; a later one may have it elsewhere."""
    content: bytes | None = None
    """Hash of the file's content, by which the index knows it (see `ContentTerm`); None if it was never read."""

    @classmethod
    def of(
        cls,
        record: Record,
        rank: int,
        score: float,
        *,
        confidence: float | None = None,
        others: int | None = None,
        box: tuple[int, int, int, int] | None = None,
        among_regions: bool = False,
    ) -> Hit:
        """Make a hit of a record of the index."""
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
            box=box,
            among_regions=among_regions,
            row=record.row,
            content=record.hash,
        )

    def as_dict(self) -> dict[str, str | int | float | list[int] | None]:
        """Return the hit as a dictionary.

        Returns:
            The fields by their names in the JSON of the command line; numbers are not rounded, and `path` is absolute.
        """
        fields: dict[str, str | int | float | list[int] | None] = {
            "rank": self.rank,
            "score": self.score,
            "confidence": self.confidence,
            "path": os.fsdecode(self.path_bytes),
            "width": self.width,
            "height": self.height,
            "bytes": self.size,
            "date": self.date,
            "date_source": self.date_source,
        }
        if self.among_regions:
            fields["box"] = None if self.box is None else list(self.box)
        if self.others is not None:
            fields["others"] = self.others
        return fields

    @property
    def path(self) -> Path:
        """The absolute path of the image. A `Path` cannot hold an address as it is: take `path_bytes` for those."""
        return Path(os.fsdecode(self.path_bytes))

    @property
    def date(self) -> str:
        """When the image was taken, or else when its file was last changed: ISO 8601 local time, to the second."""
        return self.taken_at or local_time(self.mtime_ns)
