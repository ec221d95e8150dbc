"""Keeps an index up to date while its folders change: decides when a changed file counts, and what is searched for it.

A notice of a change only says where to look; an update of that part of the folders, as `index` makes it, finds out what
there is to do. So notices that are lost, doubled or wrong do no harm. The lock is held during updates only.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, Unpack

from clipsearch.errors import IndexLockedError, InputError
from clipsearch.images.extensions import EXTENSIONS
from clipsearch.images.files import ImageFile, stamps
from clipsearch.images.ignoring import IGNORE_FILE
from clipsearch.images.other_files import Sort, sort_of
from clipsearch.index.format import FOLDER
from clipsearch.index.models import IndexModel
from clipsearch.index.reading import Store
from clipsearch.index.summary import Summary
from clipsearch.index.updating import UpdateOptions, update
from clipsearch.system.addresses import is_address
from clipsearch.system.events import Events
from clipsearch.system.members import is_archive_name, on_disk
from clipsearch.system.paths import absolute, is_below
from clipsearch.system.progress import SILENT, Progress

_log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Time between two looks at a file. It counts once size and time are the same in two."""
_IDLE_SECONDS = 5.0
"""Time between two looks whether the folders are still there, if nothing else happens."""
_MODEL_SECONDS = 60.0
"""How long the model stays in memory after its last work."""
_ALL_SECONDS = 3600.0
"""Time between two searches of everything, because a system may lose notices."""
_MOST_STARTS = 20
"""Largest number of folders that are searched one by one instead of all that is above them."""
_IGNORE_NAME, _INDEX_NAME = os.fsencode(IGNORE_FILE), os.fsencode(FOLDER)

Stamp = tuple[int, int] | None
"""Size in bytes and time of the last change in ns; None if there is no such file."""


def stamp_of(path: bytes) -> Stamp:
    """Look at a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, stamps(status)[0]


class WatchingModel(IndexModel, Protocol):
    """A model that stays loaded from one update to the next."""

    def let_go(self) -> None:
        """Free its memory until it is needed again."""


class Unsettled:
    """The files that have changed, until two looks have found them the same."""

    def __init__(self, stamp: Callable[[bytes], Stamp] = stamp_of, clock: Callable[[], float] = time.monotonic) -> None:
        self._stamp, self._clock = stamp, clock
        self._seen: dict[bytes, tuple[Stamp, float] | None] = {}
        """What each file was like, and since when; None if it was not looked at yet."""
        self.settled: dict[bytes, Stamp] = {}
        """The files that have come to rest, and how they are; the owner removes them."""

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, path: bytes) -> None:
        """Note that a file has changed."""
        self.settled.pop(path, None)
        self._seen.setdefault(path, None)

    def look(self) -> None:
        """Look at all files; those that are as they were at least `LOOK_SECONDS` ago are settled."""
        now = self._clock()
        for path, before in list(self._seen.items()):
            stamp = self._stamp(path)
            if before is None or before[0] != stamp:
                self._seen[path] = stamp, now
            elif now - before[1] >= LOOK_SECONDS:
                del self._seen[path]
                self.settled[path] = stamp

    def takes(self, file: ImageFile) -> bool:
        """Return whether a file that a search found is settled. If it was unknown, this was the first look at it.

        Members of an archive are, because a search that meets them has asked for the archive, and objects in stores,
        which are never there in part.
        """
        stamp = file.size, file.mtime_ns
        if is_address(file.path) or self.settled.get(file.path) == stamp or on_disk(file.path) != file.path:
            return True
        if self._seen.get(file.path) is None:
            self.settled.pop(file.path, None)
            self._seen[file.path] = stamp, self._clock()
        return False


def starts(paths: Iterable[bytes], top: bytes, known: Callable[[bytes], bool]) -> list[bytes]:
    """Return the folders to search for changed files below `top`, or `top` itself.

    These are the innermost folders above the files that exist and are known to hold images. In another one the rules of
    the folders above it would have to be looked at.
    """
    found: set[bytes] = set()
    for path in paths:
        folder = os.path.dirname(path)
        if os.path.basename(path) == _IGNORE_NAME or not is_below(folder, top):
            return [top]
        while folder != top and folder not in found and not (os.path.isdir(folder) and known(folder)):
            folder = os.path.dirname(folder)
        found.add(folder)
    outermost = [one for one in sorted(found) if not any(one != other and is_below(one, other) for other in found)]
    return outermost if len(outermost) <= _MOST_STARTS else [top]


class Watch:
    """An index that is kept up to date."""

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        model: WatchingModel,
        events: Events,
        *,
        max_pixels: int | None = None,
    ) -> None:
        """Prepare to keep the index in `folder` up to date with `paths`, or with all its roots if there are none."""
        self._folder, self._model, self._events = folder, model, events
        self._max_pixels = max_pixels
        self._paths = list(paths)
        self._given = [absolute(path) for path in paths]
        self._own = {os.fsencode(os.path.abspath(folder)), os.fsencode(os.path.realpath(folder))}
        """The names of the index folder."""
        self._unsettled = Unsettled()
        self._whole: set[bytes] = set()
        """The places of `_tops` that are to be searched completely."""
        self._tops: list[bytes] = []
        """What is watched."""
        self._real: dict[bytes, bytes] = {}
        """For each of `_tops` that a symbolic link leads to, its path without links."""
        self._identities: dict[bytes, tuple[int, int] | None] = {}
        """Device and inode of each of `_tops`, and of each mount point that the index knows; None if it is gone."""
        self._watched: dict[bytes, tuple[int, int] | None] | None = None
        """Those of the places that `events` watch now; None before the first."""
        self._told: dict[bytes, str] = {}
        """What is wrong with a place, and was said."""
        self._is_waiting = False
        """Whether it was said that another process holds the lock."""
        self._worked = self._searched = time.monotonic()
        """When the model was last needed, and when everything was last searched."""

    def close(self) -> None:
        """Stop watching."""
        self._events.close()

    def begin(self, progress: Progress = SILENT, **options: Unpack[UpdateOptions]) -> list[Summary]:
        """Begin to watch, and make a first update with `options`: of all places, or else of those that can be searched.

        Raises:
            ClipsearchError: a path that was given cannot be searched, or what else `update` raises.
        """
        if self._given:
            self._watched = {top: _identity(top) for top in self._given}
            self._events.watch([top for top, identity in self._watched.items() if identity is not None])
            return [self._noted(update(self._folder, self._paths, self._model, progress=progress, **options))]
        self._look_at_places()
        try:
            return [self._noted(update(self._folder, [], self._model, progress=progress, **options))]
        except InputError:  # a drive is not there, say, and what is to be done waits for it
            return [summary for top in self._tops for summary in self._updated(top, [top], progress, options)]

    def go_on(self) -> Iterator[Summary]:
        """Update the index as files change, until the caller ends it.

        Yields:
            The summary of each update, also of those that found nothing to do.

        Raises:
            ClipsearchError: what `update` raises, except that another process is writing, or that a folder is missing
                or empty, or has invalid patterns: then it is tried again.
        """
        self._look_at_places()
        while True:
            busy = self._unsettled or self._unsettled.settled or self._whole
            self._note(self._events.wait(LOOK_SECONDS if busy else _IDLE_SECONDS))
            yield from self.work()

    def work(self) -> Iterator[Summary]:
        """Look at what changed, and update the index with what has come to rest."""
        now = time.monotonic()
        self._look_at_places()
        self._unsettled.look()
        if now - self._searched >= _ALL_SECONDS:
            self._whole.update(self._tops)
            self._searched = now
        if self._whole or self._unsettled.settled:
            yield from self._update_all()
        if now - self._worked >= _MODEL_SECONDS:
            self._model.let_go()
            self._worked = now

    # -- what changed ------------------------------------------------------------------------------------------------

    def _note(self, paths: Iterable[bytes]) -> None:
        for path in map(self._as_watched, paths):
            if path in self._tops and not os.path.isfile(path):
                self._whole.add(path)
            elif not self._is_of_an_index(path):
                if os.path.isdir(path) and not os.path.islink(path):
                    self._note_folder(path)
                elif _may_matter(os.path.basename(path)):
                    self._unsettled.add(path)

    def _as_watched(self, path: bytes) -> bytes:
        """Return the name of a path below one of `_tops`; macOS gives notice of paths without symbolic links."""
        for real, top in self._real.items():
            if is_below(path, real) and not is_below(path, top):
                return top + path[len(real) :]
        return path

    def _note_folder(self, path: bytes) -> None:
        """Note a folder and all files in it, since one that was moved here brings no other notice."""
        self._unsettled.add(path)
        for folder, _, names in os.walk(path):
            for name in filter(_may_matter, names):
                self._unsettled.add(os.path.join(folder, name))

    def _is_of_an_index(self, path: bytes) -> bool:
        """Whether a path belongs to this index, or to another one below what is watched."""
        if any(is_below(path, own) for own in self._own):
            return True
        top = next((top for top in self._tops if is_below(path, top)), b"")
        parts = path[len(top) :].split(b"/")
        return any(part.startswith(_INDEX_NAME) and part != _IGNORE_NAME for part in parts)

    def _look_at_places(self) -> None:
        """Find out which folders have come, gone, or are others than before."""
        with closing(Store.open(self._folder)) as store:
            self._tops = self._given or [on_disk(root.path) for root in store.roots()]
            mounts = [folder.path for folder in store.folders()]
        self._real = {real: top for top in self._tops if (real := os.path.realpath(top)) != top}
        before, self._identities = self._identities, {place: _identity(place) for place in (*self._tops, *mounts)}
        changed = [place for place, now in self._identities.items() if place in before and before[place] != now]
        self._whole.update(top for top in self._tops for place in changed if is_below(place, top))
        tops = {top: self._identities[top] for top in self._tops}
        if tops != self._watched:
            if self._watched is not None:  # nobody watched for a moment
                self._whole.update(tops)
            self._watched = tops
            self._events.watch([top for top, identity in tops.items() if identity is not None])

    # -- what is done about it ---------------------------------------------------------------------------------------

    def _update_all(self) -> Iterator[Summary]:
        settled = list(self._unsettled.settled)
        try:
            for top in self._tops:
                mine = [path for path in settled if is_below(path, top)]
                if top in self._whole or mine:
                    yield from self._updated(top, [top] if top in self._whole else self._starts(mine, top))
                    self._whole.discard(top)
        except IndexLockedError:  # all of it stays to be done
            if not self._is_waiting:
                _log.warning("Another clipsearch is writing to this index; the changes are taken in when it is done.")
            self._is_waiting = True
            return
        self._is_waiting = False
        for path in settled:
            self._unsettled.settled.pop(path, None)

    def _starts(self, paths: Sequence[bytes], top: bytes) -> list[bytes]:
        with closing(Store.open(self._folder)) as store:
            return starts(paths, top, lambda folder: next(store.rows(folder, "TRUE", ()), None) is not None)

    def _updated(
        self, top: bytes, places: Sequence[bytes], progress: Progress = SILENT, options: UpdateOptions | None = None
    ) -> Iterator[Summary]:
        """Update the index with some of the places in `top`, or with all of it if they cannot be searched."""
        later: UpdateOptions = {
            "takes": self._unsettled.takes,
            "max_pixels": self._max_pixels,
            "keep_dead": bool(self._unsettled),  # one of these may be a file that was renamed
        }
        paths = [Path(os.fsdecode(place)) for place in places]
        try:
            summary = update(self._folder, paths, self._model, progress=progress, **(options or later))
        except InputError as error:
            _release(error)
            if list(places) == [top]:
                self._tell(top, error)
                return
            summary = None
        if summary is None:
            yield from self._updated(top, [top])
            return
        if self._told.pop(top, None):
            _log.warning("%s can be searched again.", os.fsdecode(top))
        yield self._noted(summary)

    def _tell(self, top: bytes, error: InputError) -> None:
        """Say what is wrong with a place, once."""
        if self._told.get(top) != str(error):
            self._told[top] = str(error)
            hint = {"hint": error.hints[-1], "facts": error.facts} if error.hints else {}
            _log.warning("%s", str(error), extra=hint)  # not the error, which a handler might keep

    def _noted(self, summary: Summary) -> Summary:
        if summary.embedded or summary.given_regions:
            self._worked = time.monotonic()
        return summary


def _release(error: BaseException) -> None:
    """Let go of what the frames of an error hold: a half-read cursor in them would make the next commit wait."""
    failed: BaseException | None = error
    while failed is not None:
        traceback.clear_frames(failed.__traceback__)
        failed = failed.__cause__ or failed.__context__


def _may_matter(name: bytes) -> bool:
    """Whether a file of this name may be an image, or says which files are taken."""
    suffix = os.fsdecode(os.path.splitext(name)[1]).lower()
    if name == _IGNORE_NAME or suffix in EXTENSIONS or is_archive_name(name):
        return True
    return sort_of(name)[0] in (Sort.UNKNOWN, Sort.BACKUP)


def _identity(path: bytes) -> tuple[int, int] | None:
    """Return device and inode, or 0 for an address, which is asked at the next search only; None if it is not there."""
    if is_address(path):
        return 0, 0
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
