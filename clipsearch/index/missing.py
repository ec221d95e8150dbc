"""Images that an index knows and a search did not find: which of them are gone, and which are kept all the same.

A drive that is not mounted looks like a folder whose images were deleted. So a folder that has lost all of several
images keeps their records, and so does one whose drive is another than it was, until somebody says that they are gone.
Knows nothing of how files are found, nor of the index's format.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from clipsearch.index.format import Folder
from clipsearch.system.drives import drive_at, is_certain, is_mounted_at
from clipsearch.system.paths import inside, is_below

_SEVERAL = 2
"""Images that go together from this number on are not taken for deleted."""


class Kept(NamedTuple):
    """Images that were not found and whose records stay."""

    folder: bytes
    """Absolute: the topmost one that lost all of them, or the one where their drive was mounted."""
    images: int
    away: bool
    """Whether it is known that their drive is not there; otherwise the folder merely has none of them any more."""


class Missing:
    """Paths of images, however many, in a database of the caller's; in their order."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE missing (path BLOB PRIMARY KEY, gap INTEGER, left_out INTEGER) WITHOUT ROWID")
        # Between which two files that were found some are missing; NULL for none before or behind.
        database.execute("CREATE TABLE gaps (id INTEGER PRIMARY KEY, before BLOB, behind BLOB)")
        database.execute("CREATE TABLE kept (path BLOB PRIMARY KEY, folder BLOB, away INTEGER) WITHOUT ROWID")
        self._gap: int | None = None
        self.is_open = False
        """Whether some are missing since the last file that was found."""

    def __contains__(self, path: bytes) -> bool:
        return bool(self._database.execute("SELECT 1 FROM missing WHERE path = ?", (path,)).fetchone())

    def __iter__(self) -> Iterator[bytes]:
        for (path,) in self._database.execute("SELECT path FROM missing ORDER BY path"):
            yield path

    def count(self, root: bytes | None = None) -> int:
        """How many there are, in the folder `root` if one is named."""
        return self._count("TRUE", root)

    def count_left_out(self, root: bytes | None = None) -> int:
        """How many of them are there and left out now."""
        return self._count("left_out", root)

    def add(self, path: bytes, *, left_out: bool = False) -> None:
        """One more, that is gone whatever became of its neighbours; or it is there, and left out now."""
        self._database.execute("INSERT OR IGNORE INTO missing VALUES (?, NULL, ?)", (path, left_out))

    def discard(self, path: bytes) -> None:
        """It was found again, elsewhere."""
        self._database.execute("DELETE FROM missing WHERE path = ?", (path,))

    def not_found(self, path: bytes, last: bytes | None) -> None:
        """One more, behind the file `last` that was found; paths come in their order."""
        if not self.is_open:
            self.is_open = True
            self._gap = self._database.execute("INSERT INTO gaps (before) VALUES (?)", (last,)).lastrowid
        self._database.execute("INSERT OR IGNORE INTO missing VALUES (?, ?, FALSE)", (path, self._gap))

    def found(self, path: bytes | None) -> None:
        """The next file that was found, or None at the end of a search."""
        if self.is_open:
            self._database.execute("UPDATE gaps SET behind = ? WHERE id = ?", (path, self._gap))
            self.is_open = False

    def _count(self, condition: str, root: bytes | None) -> int:
        where, values = ("TRUE", ()) if root is None else ("path >= ? AND path < ?", _range(root))
        sql = f"SELECT count(*) FROM missing WHERE {where} AND {condition}"  # noqa: S608  (our own words)
        ((number,),) = self._database.execute(sql, values)
        return int(number)

    def keep(self, start: bytes, drives: Drives) -> list[Kept]:
        """Take out those below `start`, all of which was searched, that must be kept, and tell them."""
        rows = self._database.execute(
            "SELECT path, gap, before, behind FROM missing LEFT JOIN gaps ON id = gap "
            "WHERE path >= ? AND path < ? ORDER BY path",
            _range(start),
        )
        # By the same connection while the rows are read: another table may be written meanwhile.
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
    """The drives in one root: what was mounted where when the index last saw its images, and what is there now."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        """`folders` are what the index remembers of the root."""
        self._before = {folder.path: folder for folder in folders if folder.drive is not None}
        self._away_before = [folder.path for folder in folders if folder.kept and folder.away]
        self.unproved = set(self._before)
        """Where something was mounted of which no image was met yet."""
        self._back: set[bytes] = set()
        self.now: dict[bytes, str] = {}
        """What is mounted where, as the search met it."""
        self._gone: dict[bytes, bool] = {}
        """Of what was mounted then, whether it no longer is."""

    def mounted(self, folder: bytes) -> None:
        """The search met a folder on another device than the one above it."""
        if (drive := drive_at(folder)) is not None:
            self.now[folder] = drive

    def unchanged(self, path: bytes) -> None:
        """An image is there as the index knows it, and so is its drive."""
        if (mount := self._innermost(path, self._before)) is not None:
            self.unproved.discard(mount)

    def searched(self, start: bytes, missing: Missing) -> None:
        """The search below `start` is over; what was not found is in `missing`, all of it yet."""
        for folder in {start, *(mount for mount in self._before if is_below(start, mount))}:
            if is_mounted_at(folder):
                self.mounted(folder)
        for mount, known in self._before.items():
            here = self.now.get(mount)
            if here is not None and is_certain(here) and is_certain(known.drive):
                is_back = here == known.drive
            elif known.kept and known.away:
                # Others may have been added meanwhile, so only one of the kept ones proves it.
                is_back = missing.count(mount) < known.kept
            else:
                is_back = mount not in self.unproved
            if is_back:
                self._back.add(mount)

    def is_back(self, mount: bytes) -> bool:
        """Whether the search met the drive that was mounted there before."""
        return mount in self._back

    def is_away(self, path: bytes) -> bytes | None:
        """Where the drive of an image was mounted, if that is not known to be there."""
        mount = self._innermost(path, self._before)
        if mount is not None and not self.is_back(mount):
            return mount
        # It may have gone while files were read.
        mount = self._innermost(path, self.now)
        return mount if mount is not None and self._has_gone(mount) else None

    def was_away(self, path: bytes) -> bool:
        """Whether the records of an image were kept before since its drive was not there."""
        return any(is_below(path, folder) for folder in self._away_before)

    def remembered(self, start: bytes, kept: Iterable[Kept]) -> list[Folder]:
        """What the index should remember of `start` and below from now on."""
        folders = {mount: Folder(mount, drive) for mount, drive in self.now.items() if is_below(mount, start)}
        for folder, images, away in kept:
            # The drive that is to come back, not the one in its place.
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
    """Path, folder and whether its drive is away, of those that are kept if there are enough of them."""
    for path, gap, before, behind in rows:
        mount = drives.is_away(path)
        if mount is not None:
            yield path, mount if is_below(mount, start) else start, True
        elif gap is not None and not drives.was_away(path):  # its drive is back, without it
            folder = _topmost_empty(path, before, behind, start)
            if folder is not None:
                yield path, folder, False


def _topmost_empty(path: bytes, before: bytes | None, behind: bytes | None, start: bytes) -> bytes | None:
    """The topmost folder above `path` and below `start` in which nothing was found.

    What lies in a folder comes together in the order of paths, so it is enough to look at the files that were found
    next to `path` (or None).
    """
    end = path.find(b"/", len(inside(start)))
    while end >= 0:
        below = path[: end + 1]
        if not any(found is not None and found.startswith(below) for found in (before, behind)):
            return path[:end]
        end = path.find(b"/", end + 1)
    return None


def _range(root: bytes) -> tuple[bytes, bytes]:
    """From which path up to which lies what is below `root`; "0" is the byte that follows "/"."""
    return inside(root), root.rstrip(b"/") + b"0"
