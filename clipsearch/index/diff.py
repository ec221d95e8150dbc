"""Compares folders with an index and finds the work of an update, without changing anything.

Files and records are compared as two sorted streams, and the files to read are listed in a temporary file, so that only
the images of one folder are in memory at a time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from traceback import clear_frames

from clipsearch.errors import IndexWriteError, InputError, StoreError, UnreadableImageError
from clipsearch.images.files import ImageFile
from clipsearch.images.finding import find_images
from clipsearch.images.looking import Looking
from clipsearch.images.other_files import PassedOver, listed, rule_for, sort_of
from clipsearch.images.sources import in_order, source_of
from clipsearch.index.archives import Archives, lies_in, still_holds
from clipsearch.index.format import Folder, Known
from clipsearch.index.missing import Drives, Kept, Missing
from clipsearch.index.reading import Store
from clipsearch.index.record_writing import RecordWriter
from clipsearch.index.targets import Target
from clipsearch.system.addresses import is_address
from clipsearch.system.drives import device_of
from clipsearch.system.members import file_of, on_disk, opened
from clipsearch.system.paths import is_below

_REPORT_EVERY = 1000
"""Number of files between two reports on the progress of the search."""


@dataclass
class Counts:
    """Numbers of files in the targets."""

    found: int = 0
    """Images, or files that may be images."""
    elsewhere: int = 0
    """Files that belong to other parts of the targets."""
    unchanged: int = 0
    """Images that are as the index recorded them."""
    waiting: int = 0
    """Files that have to be read."""


class Changes:
    """The differences between folders and an index. Closing it deletes its temporary file."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.gone_unreadable: set[bytes] = set()
        """Files that the index recorded as unreadable and that were not found."""
        self.unreadable_folders: dict[bytes, str] = {}
        """Folders that cannot be listed, with the reason. Records below them stay as they are."""
        self.archives = Archives()
        """The archives that were met."""
        self._passed_over: dict[bytes, PassedOver] = {}
        """The files and folders left out of each target."""
        self._devices: dict[bytes, int | None] = {}
        """The device that each target was on when its first file was found."""
        self._drives: dict[bytes, Drives] = {}
        """The drives that are mounted in each target."""
        self._looking = Looking()
        self._listed: tuple[bytes, bool] = (b"", False)
        """The last folder from which a file was missing, and whether the folder exists."""
        # A database without a name is a temporary file, which SQLite deletes on closing.
        self._queue = sqlite3.connect("")
        self._queue.execute(
            "CREATE TABLE files (path BLOB, size INTEGER, mtime_ns INTEGER, problem TEXT, ctime_ns INTEGER, "
            "inode INTEGER, by_name INTEGER)"
        )
        self.gone = Missing(self._queue)
        """Images that the index recorded and that were not found."""
        self._queue.execute("CREATE TABLE unnoted (path BLOB, ctime_ns INTEGER, inode INTEGER)")

    def close(self) -> None:
        """Delete the temporary file."""
        self._queue.close()

    def waiting(self) -> Iterator[ImageFile]:
        """Yield the files to read, in the order of their paths, and those of each archive as they follow in it."""
        with _temporary_file():
            yield from in_order(map(ImageFile._make, self._queue.execute("SELECT * FROM files ORDER BY rowid")))

    def unnoted(self) -> Iterator[tuple[bytes, int | None, int | None]]:
        """Yield path, `ctime_ns` and `inode` of unchanged files whose records, of an older format, lack the two.

        They are recorded without reading the files, so that the first run after an upgrade does not read everything.
        """
        with _temporary_file():
            yield from self._queue.execute("SELECT * FROM unnoted ORDER BY rowid")

    def compare(
        self,
        target: Target,
        store: RecordWriter | None,
        *,
        allow_empty: bool,
        searching: Callable[[int], None],
        lacks: Callable[[Known], bool] | None = None,
    ) -> None:
        """Search a target and compare it with the records of `store`, if there is an index yet.

        Args:
            target: the root or part of a root.
            store: the index; None if it is new.
            allow_empty: whether the target may hold no image.
            searching: is called from time to time with the number of files found.
            lacks: whether an unchanged file has to be read because the index lacks something of it.

        Raises:
            InputError: the target is missing, unreadable, or holds no image and `allow_empty` is False.
            IndexWriteError: there is no space for the temporary file.
        """
        before = self.counts.found, self.counts.elsewhere
        folders = store.folders() if store else []
        near = [
            folder for folder in folders if is_below(folder.path, target.start) or is_below(target.start, folder.path)
        ]
        drives = self._drives[target.start] = Drives(near)
        files = find_images(
            target.root,
            target.rules,
            start=target.start,
            others=target.others,
            part=target.part,
            unreadable=self._cannot_list,
            mounted=drives.mounted,
            passed_over=self._passed_over.setdefault(target.start, PassedOver()).add,
            looking=False,
            unpack=lambda search: self.archives.images(search, store, target),
        )
        if is_address(target.start):
            files = self._looking.ahead(files, lambda file: not _is_known(file, store, target, lacks))
        try:
            with _temporary_file():
                self._queue.executemany(
                    "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                    self._to_read(files, store.known(target.start) if store else iter(()), target, searching, lacks),
                )
                drives.searched(target.start, self.gone)
            self.confirm(target)
        except (InputError, OSError) as error:
            clear_frames(error.__traceback__)  # whose records, half read, would keep the database locked
            raise _unusable(error, target.start, store) from error
        if (self.counts.found, self.counts.elsewhere) == before and not allow_empty:
            self._refuse_empty(target, store)

    def passed_over(self, target: Target) -> Mapping[str, int]:
        """Count the files and folders of a target that were left out, by kind; empty before `compare`."""
        found = self._passed_over.get(target.start)
        return found.counts if found else {}

    def confirm(self, target: Target) -> None:
        """Check that a target still exists, because a drive may be unplugged while it is searched or read.

        Raises:
            InputError: it does not exist, or is only the empty folder where the drive was mounted.
        """
        device = device_of(on_disk(target.start))
        if device is None or device != self._devices.get(target.start, device):
            raise InputError(
                f"{os.fsdecode(file_of(target.start))} is no longer there. Nothing was removed from the index."
            )

    def keep(self, target: Target) -> list[Kept]:
        """Remove from `gone` the images whose records stay in the index although they were not found."""
        with _temporary_file():
            return self.gone.keep(target.start, self._drives[target.start])

    def remembered(self, target: Target, kept: Iterable[Kept]) -> list[Folder]:
        """Return the folders of a target that the index should store."""
        return self._drives[target.start].remembered(target.start, kept)

    def _to_read(
        self,
        files: Iterator[ImageFile],
        known: Iterator[Known],
        target: Target,
        searching: Callable[[int], None],
        lacks: Callable[[Known], bool] | None,
    ) -> Iterator[ImageFile]:
        """Merge two streams in the order of paths and yield the files that have to be read."""
        # Local names, because the loop is over every file.
        counts, drives = self.counts, self._drives[target.start]
        last: bytes | None = None
        old = next(known, None)
        for file in files:
            while old is not None and old.path < file.path:
                last = self._missing(old, last)
                old = next(known, None)
            if file.size < 0:
                old, last = self._of_another_part(file, target, known, old, last)
                continue
            same = old is not None and old.path == file.path
            is_unchanged = same and old is not None and _is_unchanged(file, old, target, lacks)
            if not (is_unchanged or file.by_name or self._is_image(file, target, is_known=same)):
                continue
            last = self._found(file.path, target)
            counts.found += 1
            if counts.found % _REPORT_EVERY == 0:
                searching(counts.found)
            if is_unchanged and old is not None:
                self._unchanged(file, old, drives)
            elif self._is_taken(file, old if same else None, target):
                counts.waiting += 1
                yield file
            if same:
                old = next(known, None)
        for rest in chain([] if old is None else [old], known):
            last = self._missing(rest, last)
        self.gone.found(None)

    def _is_taken(self, file: ImageFile, old: Known | None, target: Target) -> bool:
        """Whether a changed file is read now; otherwise it stays as the index has it."""
        if (old is not None and _looks_the_same(file, old)) or target.takes(file):
            return True
        self.counts.unchanged += old is not None and old.error is None
        return False

    def _of_another_part(
        self, file: ImageFile, target: Target, known: Iterator[Known], old: Known | None, last: bytes | None
    ) -> tuple[Known | None, bytes | None]:
        """Note a file that is not wanted and shows that its folder is there; return the next `old` and `last`."""
        self.counts.elsewhere += 1
        if old is not None and old.path == file.path:
            last, old = self._missing(old, last), next(known, None)
        # Without a look at it, it is not known whether a file without the name of an image would be found.
        return old, self._found(file.path, target) if file.by_name else last

    def _found(self, path: bytes, target: Target) -> bytes:
        """Note a file that is there, and return its path."""
        if self.gone.is_open:
            self.gone.found(path)
        if target.start not in self._devices:  # only now, because listing a folder can mount it
            self._devices[target.start] = device_of(on_disk(target.start))
        return path

    def _is_image(self, file: ImageFile, target: Target, *, is_known: bool) -> bool:
        """Whether to read a file whose name does not say what it is, or a known file that cannot be opened."""
        try:
            kind = self._looking.kind(file)
        except FileNotFoundError:
            return is_known  # reading a known file finds out that it is gone
        except UnreadableImageError:
            return True  # so will reading it, and why
        except OSError:
            if is_known:
                return True
            kind = sort_of(os.path.basename(file.path))[1]
        if kind is not None:
            self._passed_over[target.start].add(kind)
        return kind is None

    def _unchanged(self, file: ImageFile, old: Known, drives: Drives) -> None:
        if old.error is None:
            self.counts.unchanged += 1
            if drives.unproved:
                drives.unchanged(file.path)
        if old.ctime_ns is None and old.inode is None:
            self._queue.execute("INSERT INTO unnoted VALUES (?, ?, ?)", (file.path, file.ctime_ns, file.inode))

    def _missing(self, old: Known, last: bytes | None) -> bytes | None:
        """Note that a known file was not found after `last`, and return the last path whose state is certain."""
        # The search has passed this path, so a folder above it that cannot be listed has been reported.
        if any(lies_in(old.path, folder) for folder in self.unreadable_folders):
            self.counts.unchanged += old.error is None
        elif old.error is not None:
            self.gone_unreadable.add(old.path)
            return last
        elif (source := source_of(old.path)) is not None:  # its archive is there, so nothing is uncertain
            # To ask a store for each would take long, and change no more than the words in which it is reported.
            self.gone.add(old.path, left_out=not is_address(old.path) and still_holds(source, old.path))
        elif self._is_left_out(old.path):
            self.gone.add(old.path, left_out=True)
        else:
            self.gone.not_found(old.path, last)
            return last
        self.gone.found(old.path)
        return old.path

    def _is_left_out(self, path: bytes) -> bool:
        """Whether a file exists although it was not found, because other rules than before leave it out."""
        folder = os.path.dirname(path)
        if folder != self._listed[0]:
            self._listed = folder, os.path.isdir(folder)
        return self._listed[1] and os.path.lexists(path)

    def _cannot_list(self, folder: bytes, reason: str) -> None:
        self.unreadable_folders[opened(folder)] = reason  # of an archive its inside, which is below it as a root

    def _refuse_empty(self, target: Target, store: Store | None) -> None:
        place = os.fsdecode(file_of(target.start))
        if self.unreadable_folders:
            folder, reason = next(iter(self.unreadable_folders.items()))
            raise InputError(
                f"No images in {place}: in {os.fsdecode(on_disk(folder))}, {reason}. (Nothing was changed.)"
            )
        counts = self.passed_over(target)
        others = f" Left out: {listed(counts)}." if counts else ""
        rules = tuple(dict.fromkeys(rule for rule in map(rule_for, counts) if rule))
        known = store.count(target.start) if store else 0
        if known and self.gone.count_left_out(target.start) < known:
            why = "" if is_address(target.start) else " Is a drive not mounted?"
            raise InputError(
                f"No images in {place} any more.{why}{others} {_known(known)}",
                hint=(*rules, "gone-or-empty"),
                folder=file_of(target.start),
            )
        found = "No images" if not counts else "No images that can be read"
        left_out = f": the {known} that the index knows are left out now" if known else ""
        raise InputError(f"{found} in {place}{left_out}.{others} (Nothing was changed.)", hint=(*rules, "allow-empty"))


@contextmanager
def _temporary_file() -> Iterator[None]:
    """Turn errors of SQLite about the temporary file into an IndexWriteError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise IndexWriteError(
            f"Cannot write the list of files to a temporary file: {error}.\nCheck the space in the folder for "
            "temporary files, or name another one in TMPDIR."
        ) from error


def _is_known(
    file: ImageFile, store: RecordWriter | None, target: Target, lacks: Callable[[Known], bool] | None
) -> bool:
    """Whether the index has a file as it is."""
    old = next(store.known(file.path), None) if store else None
    return old is not None and old.path == file.path and _is_unchanged(file, old, target, lacks)


def _is_unchanged(file: ImageFile, old: Known, target: Target, lacks: Callable[[Known], bool] | None) -> bool:
    """Whether the file need not be read: it is unchanged, and so is the reason if it could not be read."""
    if target.reread:
        return False
    # The option has changed since this damaged image was taken or refused.
    if old.damaged and target.skip_damaged is (old.error is None):
        return False
    if not _looks_the_same(file, old):
        return False
    # Permission to open a file may change without changing its size and time.
    if old.error is not None and (target.retry or not old.opened):
        return False
    if not (file.ctime_ns == old.ctime_ns is not None or _is_same_file(file, old)):
        return False
    return not (lacks and lacks(old))


def _looks_the_same(file: ImageFile, old: Known) -> bool:
    return file.mtime_ns == old.mtime_ns and file.size == old.size


def _is_same_file(file: ImageFile, old: Known) -> bool:
    """Whether the file was neither written to nor replaced with its size and time set back.

    `ctime_ns` shows both, and no program can set it. The inode is compared only where there is no such time (Windows):
    many network and FUSE file systems give a file another inode at each mount, and then every file would be read.
    """
    if file.ctime_ns is not None and old.ctime_ns is not None:
        return file.ctime_ns == old.ctime_ns
    return file.inode is None or old.inode is None or file.inode == old.inode


def _unusable(error: InputError | OSError, start: bytes, store: Store | None) -> InputError:
    """Make the error for a root that cannot be searched, with the number of images that the index has of it."""
    images = store.count(start) if store else 0
    if isinstance(error, StoreError):
        return StoreError(f"{error} {_known(images)}" if images else str(error), hint=error.hints, **error.facts)
    return (
        InputError(f"{error} {_known(images)}", hint="gone", folder=file_of(start))
        if images
        else InputError(str(error))
    )


def _known(images: int) -> str:
    return f"The index knows {images} images there. Nothing was changed."
