"""Known images that a search did not find: decides which records are deleted and which are kept.

A drive that is not mounted looks like a folder whose images were deleted. So the records of a folder that has lost all
of its images, and of a folder on another drive than before, are kept until the user confirms that the images are gone.
The module knows nothing of how files are found, nor of the format of the index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from clipsearch.index.format import Folder
from clipsearch.system.drives import drive_at, is_certain, is_mounted_at
from clipsearch.system.members import on_disk
from clipsearch.system.paths import inside, is_below

_SEVERAL = 2
"""The least number of images that have to be missing together for their records to be kept."""


class Kept(NamedTuple):
    """The images of one folder that were not found and whose records stay."""

    folder: bytes
    """Absolute path of the topmost folder that lost all its images, or of the one where their drive was mounted."""
    images: int
    away: bool
    """Whether their drive is known not to be mounted; otherwise all images of the folder are missing."""


class Missing:
    """A sorted set of paths of images, stored in a database of the caller, so that it may be large."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE missing (path BLOB PRIMARY KEY, gap INTEGER, left_out INTEGER) WITHOUT ROWID")
        # The two neighbouring files that were found, between which some are missing; NULL if there is none.
        database.execute("CREATE TABLE gaps (id INTEGER PRIMARY KEY, before BLOB, behind BLOB)")
        database.execute("CREATE TABLE kept (path BLOB PRIMARY KEY, folder BLOB, away INTEGER) WITHOUT ROWID")
        self._gap: int | None = None
        self.is_open = False
        """Whether any are missing after the last file that was found."""

    def __contains__(self, path: bytes) -> bool:
        return bool(self._database.execute("SELECT 1 FROM missing WHERE path = ?", (path,)).fetchone())

    def __iter__(self) -> Iterator[bytes]:
        for (path,) in self._database.execute("SELECT path FROM missing ORDER BY path"):
            yield path

    def count(self, root: bytes | None = None) -> int:
        """Count the paths, or those in the folder `root`."""
        return self._count("TRUE", root)

    def count_left_out(self, root: bytes | None = None) -> int:
        """Count those that exist but are now left out."""
        return self._count("left_out", root)

    def add(self, path: bytes, *, left_out: bool = False) -> None:
        """Add a path that is certainly gone, or that exists and is now left out."""
        self._database.execute("INSERT OR IGNORE INTO missing VALUES (?, NULL, ?)", (path, left_out))

    def discard(self, path: bytes) -> None:
        """Remove a path, because its image was found elsewhere."""
        self._database.execute("DELETE FROM missing WHERE path = ?", (path,))

    def not_found(self, path: bytes, last: bytes | None) -> None:
        """Add a path that comes after `last`, the last file found. Paths have to be added in order."""
        if not self.is_open:
            self.is_open = True
            self._gap = self._database.execute("INSERT INTO gaps (before) VALUES (?)", (last,)).lastrowid
        self._database.execute("INSERT OR IGNORE INTO missing VALUES (?, ?, FALSE)", (path, self._gap))

    def found(self, path: bytes | None) -> None:
        """Note the next file that was found, or None at the end of a search."""
        if self.is_open:
            self._database.execute("UPDATE gaps SET behind = ? WHERE id = ?", (path, self._gap))
            self.is_open = False

    def _count(self, condition: str, root: bytes | None) -> int:
        where, values = ("TRUE", ()) if root is None else ("path >= ? AND path < ?", _range(root))
        sql = f"SELECT count(*) FROM missing WHERE {where} AND {condition}"  # noqa: S608  (our own words)
        ((number,),) = self._database.execute(sql, values)
        return int(number)

    def keep(self, start: bytes, drives: Drives) -> list[Kept]:
        """Remove the paths below `start` whose records must be kept, and return them by folder.

        All of `start` must have been searched.
        """
        rows = self._database.execute(
            "SELECT path, gap, before, behind FROM missing LEFT JOIN gaps ON id = gap "
            "WHERE path >= ? AND path < ? ORDER BY path",
            _range(start),
        )
        # SQLite allows writing to one table while rows of another are read by the same connection.
        self._database.executemany("INSERT INTO kept VALUES (?, ?, ?)", _candidates(rows, start, drives))
        self._database.execute(
            "DELETE FROM kept WHERE NOT away AND folder IN "
            "(SELECT folder FROM kept WHERE NOT away GROUP BY folder HAVING count(*) < ?)",
            (_SEVERAL,),
        )
        found = self._database.execute(
            "SELECT folder, count(*), away FROM kept GROUP BY folder, away ORDER BY folder"
        ).fetchall()
        self._database.execute("DELETE FROM missing WHERE path IN (SELECT path FROM kept)")
        self._database.execute("DELETE FROM kept")
        return [Kept(folder, images, bool(away)) for folder, images, away in found]


class Drives:
    """The drives in one root: what was mounted when the index last saw its images, and what is mounted now."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        """Begin with `folders`, which the index has recorded of the root."""
        self._before = {folder.path: folder for folder in folders if folder.drive is not None}
        self._away_before = [folder.path for folder in folders if folder.kept and folder.away]
        self.unproved = set(self._before)
        """Former mount points below which no known image was found yet."""
        self._back: set[bytes] = set()
        self.now: dict[bytes, str] = {}
        """The drive at each mount point that the search met."""
        self._gone: dict[bytes, bool] = {}
        """For each mount point of `now` that was looked at again, whether its drive has gone."""

    def mounted(self, folder: bytes) -> None:
        """Note a folder that is on another device than its parent."""
        if (drive := drive_at(folder)) is not None:
            self.now[folder] = drive

    def unchanged(self, path: bytes) -> None:
        """Note an unchanged image, which proves that its drive is mounted."""
        if (mount := self._innermost(path, self._before)) is not None:
            self.unproved.discard(mount)

    def searched(self, start: bytes, missing: Missing) -> None:
        """Find out which drives are mounted again, after `start` was searched.

        `missing` has all images that were not found.
        """
        for folder in {start, *(mount for mount in self._before if is_below(start, mount))}:
            if is_mounted_at(folder):
                self.mounted(folder)
        for mount, known in self._before.items():
            here = self.now.get(mount)
            if here is not None and is_certain(here) and is_certain(known.drive):
                is_back = here == known.drive
            elif known.kept and known.away:
                # Only an image whose record was kept proves it, since others may have been added meanwhile.
                is_back = missing.count(mount) < known.kept
            else:
                is_back = mount not in self.unproved
            if is_back:
                self._back.add(mount)

    def is_back(self, mount: bytes) -> bool:
        """Whether the drive that was mounted there before is mounted again."""
        return mount in self._back

    def is_away(self, path: bytes) -> bytes | None:
        """Return the mount point of an image's drive if that is not known to be mounted now; else None."""
        mount = self._innermost(path, self._before)
        if mount is not None and not self.is_back(mount):
            return mount
        # It may have been unmounted while files were read.
        mount = self._innermost(path, self.now)
        return mount if mount is not None and self._has_gone(mount) else None

    def was_away(self, path: bytes) -> bool:
        """Whether the record of an image was kept by an earlier run because its drive was not mounted."""
        return any(is_below(path, folder) for folder in self._away_before)

    def remembered(self, start: bytes, kept: Iterable[Kept]) -> list[Folder]:
        """Return the folders at and below `start` that the index should record."""
        folders = {mount: Folder(mount, drive) for mount, drive in self.now.items() if is_below(mount, start)}
        for folder, images, away in kept:
            # Record the drive that is missing, not the one that is mounted in its place.
            known = self._before.get(folder) if away else None
            now = folders.get(folder)
            drive = known.drive if known else now.drive if now else None
            folders[folder] = Folder(folder, drive, images, away=away)
        return [folders[path] for path in sorted(folders)]

    def _innermost(self, path: bytes, mounts: Mapping[bytes, object]) -> bytes | None:
        return max((mount for mount in mounts if is_below(path, mount)), key=len, default=None)

    def _has_gone(self, mount: bytes) -> bool:
        if mount not in self._gone:
            self._gone[mount] = drive_at(mount) != self.now[mount]
        return self._gone[mount]


def _candidates(
    rows: Iterable[tuple[bytes, int | None, bytes | None, bytes | None]], start: bytes, drives: Drives
) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield path, folder, and whether its drive is not mounted, of images that are kept if there are enough of them."""
    for path, gap, before, behind in rows:
        mount = drives.is_away(path)
        if mount is not None:
            yield path, mount if is_below(mount, start) else start, True
        elif gap is not None and not drives.was_away(path):  # if it was away, its drive is back without the image
            folder = _topmost_empty(path, before, behind, start)
            if folder is not None:
                yield path, folder, False


def _topmost_empty(path: bytes, before: bytes | None, behind: bytes | None, start: bytes) -> bytes | None:
    """Return the topmost folder above `path` and below `start` in which nothing was found; None if there is none.

    Paths of a folder are neighbours in the order of paths, so it is enough to look at the files found before and after
    `path`.
    """
    end = path.find(b"/", len(inside(start)))
    last = len(on_disk(path))  # an archive that is gone was a file, not a folder that a drive is mounted on
    while 0 <= end < last:
        below = path[: end + 1]
        if not any(found is not None and found.startswith(below) for found in (before, behind)):
            return path[:end]
        end = path.find(b"/", end + 1)
    return None


def _range(root: bytes) -> tuple[bytes, bytes]:
    """Return the bounds of paths below `root`: the first one, and the first one after them ("0" follows "/")."""
    return inside(root), root.rstrip(b"/") + b"0"
