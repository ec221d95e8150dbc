"""The archives that an update of an index meets: which of them are unchanged, so that they need not be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.archive_search import ArchiveSearch
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.sources import Source
from clipsearch.index.format import ArchiveState, Root
from clipsearch.index.record_writing import RecordWriter
from clipsearch.index.targets import Target
from clipsearch.system.members import MARK, on_disk, within
from clipsearch.system.paths import is_below


class Archives:
    """The archives that one update has listed."""

    def __init__(self) -> None:
        self._listed: list[ArchiveState] = []

    def images(self, search: ArchiveSearch, store: RecordWriter | None, target: Target) -> Iterator[ImageFile]:
        """Yield the images in an archive: those that the index knows if it is unchanged, else those that are found."""
        state = store.archive(search.inside) if store and not target.reread else None
        if store and state and state._replace(left_out="", members=0) == _state(search):
            known = list(store.known(search.inside))
            # Of other parts, the index knows nothing that would show that the archive is not empty.
            if len(known) == state.members and (known or target.part is None):
                search.pass_over(json.loads(state.left_out))
                for old in known:
                    yield ImageFile(old.path, old.size, old.mtime_ns, None, old.ctime_ns, old.inode)
                return
        if not target.takes(search.file):  # so all in it stays as the index has it
            for old in store.known(search.inside) if store else ():
                yield ImageFile(old.path, old.size, old.mtime_ns, None, old.ctime_ns, old.inode)
            return
        yield from search.images()
        if search.is_complete:
            self._listed.append(_state(search)._replace(left_out=json.dumps(search.passed_over.counts)))

    def record(self, writer: RecordWriter, starts: Iterable[bytes]) -> None:
        """Record the archives that were listed, now that all of their members are recorded."""
        for start in starts:
            found = [state for state in self._listed if is_below(state.path, start)]
            counted = [state._replace(members=sum(1 for _ in writer.known(state.path))) for state in found]
            writer.set_archives(start, counted)


def check_archives(start: bytes, root: bytes, roots: Iterable[Root], rules: Rules) -> None:
    """Check that a search of `start`, by `rules`, agrees with the `roots` of the index on which archives are read.

    Raises:
        InputError: an archive is named, or is in the index, and lies in a folder whose archives are not read.
    """
    stored = {other.path: Rules.from_json(other.options) for other in roots}
    used = rules if start == root else stored.get(root, rules)
    if used.archives or within(root) is not None:
        return
    if within(start) is not None:
        what, archive = "lies in a folder that is indexed without archives", start
    else:
        archive = next((path for path in stored if is_below(path, start) and within(path) is not None), b"")
        what = "is in the index, and this would drop it: archives in folders are not read"
    if archive:
        raise InputError(
            f"{os.fsdecode(on_disk(archive))} {what}.", hint="archives-of-folder", folder=root, archive=on_disk(archive)
        )


def lies_in(path: bytes, place: bytes) -> bool:
    """Return whether a path lies in a folder or an archive."""
    return path != place and (is_below(path, place) or is_below(path, place + MARK))


def still_holds(source: Source, path: bytes) -> bool:
    """Return whether a source still has a file, or cannot tell."""
    try:
        return source.file(path) is not None
    except (OSError, UnreadableImageError):
        return True


def _state(search: ArchiveSearch) -> ArchiveState:
    file = search.file
    return ArchiveState(search.inside, file.size, file.mtime_ns, file.ctime_ns, file.inode, search.rules(), "")
