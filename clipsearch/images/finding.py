"""Search for image files in folders.

Decodes no image, and reads nothing but the first bytes of files whose names do not say what they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.archive_search import ArchiveSearch, two_meanings
from clipsearch.images.entries import Identity, entries_of, identity_of, is_file, kind_of, leads_to_folder
from clipsearch.images.extensions import ImageNames
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.ignoring import IGNORE_FILE, Patterns, is_ignored, read_patterns
from clipsearch.images.looking import Looking
from clipsearch.images.named_files import named_file
from clipsearch.images.other_files import Sort, sort_of, system_folder
from clipsearch.images.parts import Part
from clipsearch.system.addresses import is_address
from clipsearch.system.members import MARK, Inside, is_archive_name, on_disk, opened, within
from clipsearch.system.naming import ASIDE
from clipsearch.system.paths import inside, is_below

_DEFAULT = Rules()
_IGNORE_NAME = os.fsencode(IGNORE_FILE)
_NOWHERE = "a link that leads nowhere"
_PUT_ASIDE = (
    "a picture lies aside in it, which a run that was killed did not put back; move it into the folder above (mv -n)"
)
_FOLDER, _IMAGE, _UNKNOWN, _ARCHIVE = range(4)
"""Kinds of folder entries; plain numbers, since they are compared for every file."""


def find_images(
    root: bytes,
    rules: Rules = _DEFAULT,
    *,
    start: bytes | None = None,
    others: Sequence[bytes] = (),
    part: Part | None = None,
    unreadable: Callable[[bytes, str], None] = lambda _path, _reason: None,
    mounted: Callable[[bytes], None] = lambda _path: None,
    passed_over: Callable[[str], None] = lambda _kind: None,
    looking: bool = True,
    unpack: Callable[[ArchiveSearch], Iterator[ImageFile]] = ArchiveSearch.images,
) -> Iterator[ImageFile]:
    """Yield all image files under a folder, in the order of their paths' bytes. Links to files count as files.

    Args:
        root: Absolute path of a folder, or of one file, or an address. Of an archive, its members are found.
        rules: Which files are taken.
        start: Search only this file or folder below `root`; ignore files above it still count.
        others: Other roots. Links to folders do not lead into them.
        part: The part of `root` that is wanted. Files of other parts are yielded without a look at them, with a
            negative size.
        unreadable: Called with the path of each folder that cannot be listed or examined, and the reason.
        mounted: Called with each folder that is on another device than its parent, before its images come.
        passed_over: Called with the kind (see `other_files`) of each file or folder that is left out.
        looking: Whether to read the first bytes of files whose names do not say what they are; if not, they are all
            yielded, with `by_name` False.
        unpack: Finds the images in an archive.

    Raises:
        InputError: `root` or `start` does not exist or cannot be read, or a pattern is invalid.
    """
    place = opened(root if start is None else start)
    walk = _Walk(root, rules, others, unreadable, mounted, passed_over=passed_over, part=part, unpack=unpack)
    inner = within(place)
    if is_address(place):
        files = walk.in_store(place)
    else:
        files = _on_disk(place, walk) if inner is None else walk.in_archive(inner, place)
    if not looking:
        yield from files
        return
    looks = Looking()
    for file in looks.ahead(files, lambda _: True) if is_address(place) else files:
        if file.by_name or file.size < 0 or _is_image(file, looks, passed_over):
            yield file


def _on_disk(place: bytes, walk: _Walk) -> Iterator[ImageFile]:
    """Yield the images in a folder, or one file, with the errors of `find_images`."""
    shown = os.fsdecode(on_disk(place))
    try:
        status = os.stat(place)
        entries = entries_of(place) if stat.S_ISDIR(status.st_mode) else None
    except FileNotFoundError as error:
        raise InputError(f"No such file or folder: {shown}") from error
    except OSError as error:
        raise InputError(f"Cannot read {shown}: {error.strerror}") from error
    if entries is not None:
        yield from walk.below(place, entries, status.st_dev)
    elif stat.S_ISREG(status.st_mode):
        if is_archive_name(place):  # and yet it was not found to be an archive
            raise InputError(f"Cannot read {shown}: {two_meanings(place)}.")
        yield walk.alone(place, status)
    else:
        raise InputError(f"{shown} is {kind_of(status.st_mode)}, neither an image nor a folder.")


def _is_image(file: ImageFile, looking: Looking, passed_over: Callable[[str], None]) -> bool:
    try:
        kind = looking.kind(file)
    except FileNotFoundError:  # gone since its folder was listed
        return False
    except UnreadableImageError:  # reading it shows why
        return True
    except OSError:
        kind = sort_of(os.path.basename(file.path))[1]
    if kind is not None:
        passed_over(kind)
    return kind is None


class _Level(NamedTuple):
    """A folder during the search."""

    path: bytes
    entries: list[tuple[bytes, os.DirEntry[bytes], int]]
    """(sort key, entry, kind), last first, so that each is freed once it is done."""
    linked: bool
    """Whether it was reached through a symbolic link."""
    device: int
    """Number of the device it is on."""
    ignores: tuple[Patterns, ...]
    """Patterns of the ignore files that apply, innermost first."""


class _Walk:
    """One search through a root."""

    def __init__(
        self,
        root: bytes,
        rules: Rules,
        others: Sequence[bytes],
        unreadable: Callable[[bytes, str], None],
        mounted: Callable[[bytes], None],
        *,
        passed_over: Callable[[str], None],
        part: Part | None,
        unpack: Callable[[ArchiveSearch], Iterator[ImageFile]],
    ) -> None:
        self._root = root
        self._part, self._prefix = part, len(inside(root))
        self._rules = rules
        self._others = others
        self._unreadable = unreadable
        self._mounted = mounted
        self._passed_over = passed_over
        self._unpack = unpack
        self._has_image_name = ImageNames().fits
        self._real_roots = [os.path.realpath(top) for top in (root, *others)]
        self._followed: set[Identity] = set()
        """Folders that links led to, and the roots: none is entered twice, so that no circle is endless."""
        self._exclude = Patterns(root, rules.exclude, "exclude") if rules.exclude else None

    def below(self, start: bytes, entries: list[os.DirEntry[bytes]], device: int) -> Iterator[ImageFile]:
        """Yield the images in the folder `start`, which has these entries and is on this device."""
        self._followed.add(identity_of(os.stat(self._root)))
        for other in self._others:
            with suppress(OSError):
                self._followed.add(identity_of(os.stat(other)))
        # A stack instead of recursion: folders may be nested deeper than Python's limit.
        levels = [self._level(start, entries, self._ignores_above(start), device, linked=False)]
        while levels:
            level = levels[-1]
            if not level.entries:
                levels.pop()
                continue
            _, entry, what = level.entries.pop()
            if (self._exclude or level.ignores) and self._left_out(entry, level.ignores, is_folder=what is _FOLDER):
                continue
            if what is _FOLDER:
                if (inner := self._enter(entry, level)) is not None:
                    levels.append(inner)
            elif what is _ARCHIVE:
                yield from self._in_entry(entry, level)
            elif (image := self._file(entry, what, level)) is not None:
                yield image

    def alone(self, path: bytes, status: os.stat_result) -> ImageFile:
        """Describe a file that is searched alone."""
        if path == self._root:
            self._prefix = len(inside(os.path.dirname(path)))
        return ImageFile.of(path, status) if self._is_mine(path) else ImageFile(path, -1, 0)

    def in_archive(self, inner: Inside, place: bytes) -> Iterator[ImageFile]:
        """Yield the images at and below `place`, which is `inner`: an archive, or a folder or file in one.

        Raises:
            InputError: there is no such archive, folder or file.
        """
        try:
            file = ImageFile.of(inner.archive, os.stat(inner.archive))
        except OSError as error:
            raise InputError(f"Cannot read {os.fsdecode(inner.archive)}: {error.strerror}") from error
        search = self._search(file, self._ignores_above(inner.archive))
        if not inner.name:
            yield from self._mine(self._unpack(search))
        elif (named := named_file(place)).problem is None:
            yield from self._mine([named])
        else:
            found = [member for member in search.images() if is_below(member.path, place)]
            if not found:
                raise InputError(f"No such file or folder: {os.fsdecode(place)}")
            yield from self._mine(found)

    def in_store(self, place: bytes) -> Iterator[ImageFile]:
        """Yield the images at and below an address."""
        from clipsearch.images.store_search import images_at  # a search of folders does not need it

        patterns = () if self._exclude is None else (self._exclude,)
        yield from self._mine(images_at(place, self._root, self._rules, patterns, self._passed_over))

    def _in_entry(self, entry: os.DirEntry[bytes], level: _Level) -> Iterator[ImageFile]:
        """Yield the images in an archive of a folder."""
        file = self._describe(entry, level)
        if file is not None and file.problem is not None:
            self._unreadable(file.path, file.problem)
        elif file is not None:
            yield from self._mine(self._unpack(self._search(file, level.ignores)))

    def _search(self, archive: ImageFile, ignores: tuple[Patterns, ...]) -> ArchiveSearch:
        patterns = (self._exclude, *ignores) if self._exclude else ignores
        passed_over = self._passed_over if self._is_mine(archive.path) else lambda _kind: None
        return ArchiveSearch(archive, self._rules, patterns, unreadable=self._unreadable, passed_over=passed_over)

    def _mine(self, members: Iterable[ImageFile]) -> Iterator[ImageFile]:
        """Yield members of an archive, those of other parts as `find_images` does."""
        for file in members:
            yield file if self._is_mine(file.path) else ImageFile(file.path, -1, 0, by_name=file.by_name)

    def _level(
        self,
        path: bytes,
        entries: list[os.DirEntry[bytes]],
        ignores: tuple[Patterns, ...],
        device: int,
        *,
        linked: bool,
    ) -> _Level:
        ordered, others = [], []
        for entry in entries:
            if entry.name == _IGNORE_NAME:
                ignores = (read_patterns(path), *ignores)
            if entry.name.startswith(ASIDE):
                self._unreadable(entry.path, _PUT_ASIDE)
                continue
            if entry.name.startswith(b".") and not self._rules.include_hidden:
                continue
            if self._is_folder(entry):
                ordered.append((entry.name + b"/", entry, _FOLDER))
            elif not self._has_image_name(entry.name):
                if self._rules.archives and is_archive_name(entry.name):
                    ordered.append((entry.name + MARK + b"/", entry, _ARCHIVE))
                else:
                    others.append(entry)
            elif not (entry.is_symlink() and leads_to_folder(entry)):
                ordered.append((entry.name, entry, _IMAGE))
        ordered += [(entry.name, entry, _UNKNOWN) for entry in others if self._may_be_image(entry, ignores)]
        ordered.sort(key=lambda item: item[0], reverse=True)
        return _Level(path, ordered, linked, device, ignores)

    def _may_be_image(self, entry: os.DirEntry[bytes], ignores: tuple[Patterns, ...]) -> bool:
        """Whether to read the first bytes of a file without an image extension; report it if it is left out."""
        sort, kind = sort_of(entry.name)
        wanted = sort is Sort.UNKNOWN or (sort is Sort.BACKUP and self._rules.include_backups)
        if wanted and not self._rules.by_name_only:
            return True
        if sort is not Sort.BESIDE and not self._left_out(entry, ignores, is_folder=False) and is_file(entry):
            self._leave_out(entry, kind)
        return False

    def _enter(self, entry: os.DirEntry[bytes], level: _Level) -> _Level | None:
        if not self._rules.include_system and (kind := system_folder(entry.path)):
            self._leave_out(entry, kind)
            return None
        try:
            linked = level.linked or entry.is_symlink()
            if linked and not self._is_new(entry):
                return None
            entries = entries_of(entry.path)
            device = os.stat(entry.path).st_dev  # after listing, since that can mount it
            if device != level.device:
                self._mounted(entry.path)
            return self._level(entry.path, entries, level.ignores, device, linked=linked)
        except (FileNotFoundError, NotADirectoryError):
            return None  # gone since its parent was listed
        except OSError as error:
            self._unreadable(entry.path, f"the folder cannot be read: {error.strerror}")
            return None

    def _is_mine(self, path: bytes) -> bool:
        """Whether a file, or a folder that is left out as a whole, belongs to the part that is wanted."""
        return self._part is None or self._part.holds(path[self._prefix :])

    def _leave_out(self, entry: os.DirEntry[bytes], kind: str) -> None:
        if self._is_mine(entry.path):
            self._passed_over(kind)

    def _is_new(self, entry: os.DirEntry[bytes]) -> bool:
        """Whether a folder reached through a link is not reached in another way, too."""
        if entry.is_symlink():
            place = os.path.realpath(entry.path)
            if any(is_below(place, root) for root in self._real_roots):
                return False
        identity = identity_of(entry.stat())
        if identity in self._followed:
            return False
        self._followed.add(identity)
        return True

    def _is_folder(self, entry: os.DirEntry[bytes]) -> bool:
        """Whether to enter it. A link or entry that may be a folder but cannot be examined is reported."""
        follow = self._rules.follow_symlinks
        try:
            if entry.is_dir(follow_symlinks=follow):
                return True
            if follow and entry.is_symlink():
                entry.stat()  # fails if it leads nowhere, to a drive that is not there, say
        except OSError as error:
            if not self._has_image_name(entry.name):  # otherwise it is described as a file
                gone = isinstance(error, FileNotFoundError)
                self._unreadable(entry.path, _NOWHERE if gone else f"it cannot be examined: {error.strerror}")
        return False

    def _file(self, entry: os.DirEntry[bytes], what: int, level: _Level) -> ImageFile | None:
        if not self._is_mine(entry.path):
            return ImageFile(entry.path, -1, 0, by_name=what is _IMAGE)
        return self._describe(entry, level) if what is _IMAGE else _unknown(entry)

    def _describe(self, entry: os.DirEntry[bytes], level: _Level) -> ImageFile | None:
        """Describe the file behind an entry; None if it is gone, or if the entries of its folder cannot be examined."""
        try:
            status = entry.stat()
            problem = None if stat.S_ISREG(status.st_mode) else f"{kind_of(status.st_mode)}, not a file"
        except OSError as error:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                return None
            except OSError as unknown:
                self._unreadable(level.path, f"the files in it cannot be examined: {unknown.strerror}")
                return None
            problem = _NOWHERE if isinstance(error, FileNotFoundError) else str(error.strerror)
        return ImageFile.of(entry.path, status, problem)

    def _left_out(self, entry: os.DirEntry[bytes], ignores: tuple[Patterns, ...], *, is_folder: bool) -> bool:
        sources = (self._exclude, *ignores) if self._exclude else ignores
        return is_ignored(entry.path, sources, is_folder=is_folder)

    def _ignores_above(self, start: bytes) -> tuple[Patterns, ...]:
        """Patterns of the ignore files in the folders above `start`, up to the root, innermost first."""
        found: list[Patterns] = []
        folder = start
        while folder != self._root and is_below(folder, self._root):
            folder = os.path.dirname(folder)
            if os.path.isfile(os.path.join(folder, _IGNORE_NAME)):
                found.append(read_patterns(folder))
        return tuple(found)


def _unknown(entry: os.DirEntry[bytes]) -> ImageFile | None:
    """Describe a regular file without an image extension; None if it is empty or no regular file."""
    try:
        status = entry.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    return ImageFile.of(entry.path, status)._replace(by_name=False)
