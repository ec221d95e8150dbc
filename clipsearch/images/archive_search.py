"""The images in an archive, by the rules of a search. The rules of folders hold for the folders in it, too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from clipsearch.errors import UnreadableImageError
from clipsearch.images.extensions import ImageNames
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.ignoring import Patterns
from clipsearch.images.member_rules import MemberRules
from clipsearch.images.other_files import PassedOver
from clipsearch.system.members import MARK


def two_meanings(archive: bytes) -> str:
    """Return why an archive is not read beside which there is a file or folder with its name and `!`."""
    beside = os.fsdecode(os.path.basename(archive) + MARK)
    return f"there is also {beside}, so that the paths of its members would mean two things; rename one of them"


class ArchiveSearch:
    """One archive in a search."""

    def __init__(
        self,
        file: ImageFile,
        rules: Rules,
        patterns: Sequence[Patterns],
        *,
        unreadable: Callable[[bytes, str], None],
        passed_over: Callable[[str], None],
    ) -> None:
        """Prepare the search of the archive `file`; the others are as for `finding.find_images`."""
        self.file = file
        self.inside = file.path + MARK
        """The path that all members lie in."""
        self.is_complete = False
        """Whether all members have been listed."""
        self.passed_over = PassedOver()
        """The files and folders in it that were left out."""
        self._rules = rules
        self._patterns = patterns
        self._unreadable = unreadable
        self._report = passed_over
        self._members = MemberRules(self.inside, rules, patterns, passed_over=self._passed_over)

    def rules(self) -> str:
        """Return a digest of all rules and known extensions; with another one, other members may be found."""
        lines = [patterns.lines for patterns in self._patterns]
        asked = repr((self._rules, lines, sorted(ImageNames().suffixes)))
        return hashlib.blake2b(asked.encode("utf-8", "replace"), digest_size=16).hexdigest()

    def images(self) -> Iterator[ImageFile]:
        """Yield the images, and the files that may be images, in the order of their paths' bytes."""
        from clipsearch.images.archives import Archive  # a search that meets no archive does not need it

        if os.path.lexists(self.inside):
            self._unreadable(self.file.path, two_meanings(self.file.path))
            return
        archive = Archive(self.file.path)
        try:
            problem = archive.contents().problem
            if problem is not None:  # said before any member, so that the caller does not take the others for gone
                self._unreadable(self.file.path, problem)
            for member in archive.files():
                if (found := self._members.wanted(member)) is not None:
                    yield found
            self.is_complete = problem is None
        except (OSError, UnreadableImageError) as error:
            self._unreadable(self.file.path, (isinstance(error, OSError) and error.strerror) or str(error))

    def pass_over(self, counts: Mapping[str, int]) -> None:
        """Report what an earlier search left out."""
        for kind, count in counts.items():
            for _ in range(count):
                self._passed_over(kind)

    def _passed_over(self, kind: str) -> None:
        self.passed_over.add(kind)
        self._report(kind)
