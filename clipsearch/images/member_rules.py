"""The rules of a search for files that are listed with their paths, as in archives and stores, and not by folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from clipsearch.images.extensions import ImageNames
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.ignoring import Patterns, is_ignored
from clipsearch.images.other_files import IN_AN_ARCHIVE, Sort, sort_of, system_folder
from clipsearch.system.members import is_archive_name


class MemberRules:
    """Which files of one place are taken. The rules of folders hold for the folders in it, too."""

    def __init__(
        self,
        inside: bytes,
        rules: Rules,
        patterns: Sequence[Patterns],
        *,
        passed_over: Callable[[str], None],
        where: str = IN_AN_ARCHIVE,
        named: bool = False,
    ) -> None:
        """Prepare for files below `inside`.

        Args:
            inside: the path of the place.
            rules: which files are taken.
            patterns: what is left out.
            passed_over: as for `finding.find_images`.
            where: added to the kind of an archive, which is not read there.
            named: whether somebody has listed the files as images, so that their names need not say so.
        """
        self._place = inside + b"/"
        self._rules = rules
        self._patterns = patterns
        self._passed_over = passed_over
        self._where, self._named = where, named
        self._names = ImageNames()
        self._chain: list[tuple[bytes, bool]] = []
        """The folders above the last file, outermost first, and whether each is searched. Files come in the order of
        their paths, so none of the others is needed again."""

    def wanted(self, member: ImageFile) -> ImageFile | None:
        """Return a member if it is an image, or may be one by its name; None if it is left out."""
        folder, _, name = member.path[len(self._place) :].rpartition(b"/")
        hidden = name.startswith(b".") and not self._rules.include_hidden
        if hidden or not self._searched(folder) or is_ignored(member.path, self._patterns, is_folder=False):
            return None
        if self._names.fits(name):
            return member
        if is_archive_name(name):
            self._passed_over(os.fsdecode(os.path.splitext(name)[1]).lower() + self._where)
            return None
        sort, kind = sort_of(name)
        may_be = sort is Sort.UNKNOWN or (sort is Sort.BACKUP and self._rules.include_backups)
        if may_be and self._named:
            return member
        if may_be and not self._rules.by_name_only:
            return member._replace(by_name=False) if member.size else None
        if sort is not Sort.BESIDE:
            self._passed_over(kind)
        return None

    def _searched(self, folder: bytes) -> bool:
        """Whether a folder is searched; each is decided once, and reported once if it is left out."""
        while self._chain and not (folder + b"/").startswith(self._chain[-1][0] + b"/"):
            self._chain.pop()
        known = len(self._chain[-1][0]) + 1 if self._chain else 0
        while not self._chain or self._chain[-1][0] != folder:
            if not folder:
                return True
            end = folder.find(b"/", known)
            inner = folder if end < 0 else folder[:end]
            above = self._chain[-1][1] if self._chain else True
            self._chain.append((inner, above and self._entered(inner, inner.rpartition(b"/")[2])))
            known = len(inner) + 1
        return self._chain[-1][1]

    def _entered(self, folder: bytes, name: bytes) -> bool:
        path = self._place + folder
        if name.startswith(b".") and name != b".." and not self._rules.include_hidden:  # those with `..` are named
            return False
        if is_ignored(path, self._patterns, is_folder=True):
            return False
        if not self._rules.include_system and (kind := system_folder(path)):
            self._passed_over(kind)
            return False
        return True
