"""The images in an archive, by the rules of a search. The rules of folders hold for the folders in it, too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from clipsearch.errors import UnreadableImageError
from clipsearch.images.extensions import ImageNames
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.ignoring import Patterns, is_ignored
from clipsearch.images.other_files import IN_AN_ARCHIVE, PassedOver, Sort, sort_of, system_folder
from clipsearch.system.members import MARK, is_archive_name


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
        self._folders: dict[bytes, bool] = {b"": True}
        """Whether each folder of the archive, by its path in it, is searched."""

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
        names = ImageNames()
        archive = Archive(self.file.path)
        try:
            problem = archive.contents().problem
            if problem is not None:  # said before any member, so that the caller does not take the others for gone
                self._unreadable(self.file.path, problem)
            for member in archive.files():
                if (found := self._wanted(member, names)) is not None:
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

    def _wanted(self, member: ImageFile, names: ImageNames) -> ImageFile | None:
        """Return a member if it is an image, or may be one by its name; None if it is left out."""
        folder, _, name = member.path[len(self.inside) + 1 :].rpartition(b"/")
        hidden = name.startswith(b".") and not self._rules.include_hidden
        if hidden or not self._searched(folder) or is_ignored(member.path, self._patterns, is_folder=False):
            return None
        if names.fits(name):
            return member
        if is_archive_name(name):
            self._passed_over(os.fsdecode(os.path.splitext(name)[1]).lower() + IN_AN_ARCHIVE)
            return None
        sort, kind = sort_of(name)
        may_be = sort is Sort.UNKNOWN or (sort is Sort.BACKUP and self._rules.include_backups)
        if may_be and not self._rules.by_name_only:
            return member._replace(by_name=False) if member.size else None
        if sort is not Sort.BESIDE:
            self._passed_over(kind)
        return None

    def _searched(self, folder: bytes) -> bool:
        """Whether a folder of the archive is searched; each is decided once, and reported once if it is left out."""
        known = self._folders.get(folder)
        if known is None:
            above, _, name = folder.rpartition(b"/")
            known = self._folders[folder] = self._searched(above) and self._entered(folder, name)
        return known

    def _entered(self, folder: bytes, name: bytes) -> bool:
        path = self.inside + b"/" + folder
        if name.startswith(b".") and name != b".." and not self._rules.include_hidden:  # those with `..` are named
            return False
        if is_ignored(path, self._patterns, is_folder=True):
            return False
        if not self._rules.include_system and (kind := system_folder(path)):
            self._passed_over(kind)
            return False
        return True
