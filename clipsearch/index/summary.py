"""What one run of `index` did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from clipsearch.index.missing import Kept


class Merged(NamedTuple):
    """A path that is, or lies in, another root under a second name."""

    path: bytes
    """Absolute, as it was given, or was known as a root of its own."""
    name: bytes
    """What it is called from the root on, and is searched as."""


@dataclass
class Summary:
    """What one run did, in numbers of files."""

    images: int = 0
    """In the index now, all roots together."""
    embedded: int = 0
    """Went through the model."""
    unchanged: int = 0
    """Are as the index knows them."""
    touched: int = 0
    """Were read, since their time or place on the disk is another, and have the same content as before."""
    copied: int = 0
    """Are new under their path, with a content that the index has a vector of: a copy, or a picture that came back."""
    moved: int = 0
    """Known by content under another path, which is gone."""
    removed: int = 0
    """No longer there, or left out now."""
    left_out: int = 0
    """Of those that were removed: are there."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Files, and folders of systems and programs, left out as no images, by kind (see `images.other_files`)."""
    kept: list[Kept] = field(default_factory=list)
    """Folders whose images were not found and stay all the same, since a drive may not be mounted."""
    merged: list[Merged] = field(default_factory=list)
    """Places that are part of a root under a second name."""
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    """Path and reason of every file under the roots that is no readable image, and of every folder that cannot be
    listed."""

    damaged: list[tuple[bytes, float]] = field(default_factory=list)
    """Path of every image under the roots of which a part is missing, and the share of it, 0 to 0.5."""
    seconds: float = 0.0
    """How long it took, to the thousandth; the index remembers the same."""
    newly_damaged: list[tuple[bytes, float]] = field(default_factory=list)
    """Those of them that are new in the index under their path, or have another content than before."""

    @property
    def reused(self) -> int:
        """Have a vector of before, and kept their path or are new under it."""
        return self.unchanged + self.touched + self.copied
