"""The summary of an update of an index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from clipsearch.images.parts import Part
from clipsearch.index.missing import Kept


class Merged(NamedTuple):
    """A path that lies in another root under a second name."""

    path: bytes
    """The absolute path that was given, or that was a root of its own."""
    name: bytes
    """The path in the other root under which it is searched now."""


@dataclass
class Summary:
    """The results of an update, mostly as numbers of files."""

    part: Part | None = None
    """The part of the roots that the index holds; None for all of them."""
    images: int = 0
    """Images in the index now, in all roots."""
    embedded: int = 0
    """Images that were embedded."""
    regions: int | None = None
    """Regions in the index now, also of images that are gone; None if it has none."""
    given_regions: int = 0
    """Images, among those that are not embedded, whose regions were embedded."""
    unchanged: int = 0
    """Images that are as the index recorded them."""
    touched: int = 0
    """Images that were read because their time or inode has changed, and have the same content as before."""
    copied: int = 0
    """Images at a new path whose content has a vector already, because they are copies or were in the index before."""
    moved: int = 0
    """Images at a new path whose content was at another path, which is gone."""
    removed: int = 0
    """Images that are gone, or left out now."""
    left_out: int = 0
    """Images among those removed that still exist but are left out now."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Numbers of files, and of folders of systems and programs, that were left out, by kind (see
    `images.other_files`)."""
    kept: list[Kept] = field(default_factory=list)
    """Folders whose images were not found but stay in the index, because a drive may not be mounted."""
    merged: list[Merged] = field(default_factory=list)
    """Paths that are part of another root under a second name."""
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    """Path and reason of every file in the roots that cannot be read, and of every folder that cannot be listed."""
    unreachable: list[tuple[bytes, str]] = field(default_factory=list)
    """Those of `unreadable` whose records, with their vectors, stay as they were, because a store did not answer."""
    damaged: list[tuple[bytes, float]] = field(default_factory=list)
    """Path of every damaged image in the roots, and the share that is missing, 0 to 0.5."""
    seconds: float = 0.0
    """Duration of the run, rounded to milliseconds; the index records the same."""
    newly_damaged: list[tuple[bytes, float]] = field(default_factory=list)
    """Those of `damaged` that are new at their path or have another content than before."""

    @property
    def reused(self) -> int:
        """Number of images whose vector was in the index before, without those that were moved."""
        return self.unchanged + self.touched + self.copied
