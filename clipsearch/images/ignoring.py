"""Patterns of what to leave out, with the rules of .gitignore: of `.clipsearchignore` files and of a search."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from clipsearch.errors import InputError
from clipsearch.system.bounded import read_list_in

if TYPE_CHECKING:
    from pathspec import Pattern

IGNORE_FILE = ".clipsearchignore"
"""Name of the ignore files, which hold patterns with the rules of .gitignore."""


class Patterns:
    """The patterns of one ignore file, relative to the folder `base`.

    Each pattern is matched with a file or folder itself, never with the folders above, which were entered because they
    are not ignored. If pathspec were given whole paths, its verdict on a folder would hold for everything in it: after
    `*` and `!*/`, everything below the first level would be taken.

    A pattern that is not ASCII also matches names in another Unicode normal form: `Fotos für Opa` means the folder,
    however its name is stored. If one folder holds two names that differ only in that, both are ignored.
    """

    def __init__(self, base: bytes, lines: Iterable[str], source: str) -> None:
        self._base = base
        self.lines = tuple(lines)
        """The patterns as they were written."""
        self._lines = [found for line in self.lines for found in _compiled(line, source)][::-1]
        """(pattern, whether it contains a slash, whether it matches NFC names), last first: the last match decides."""

    def verdict(self, path: bytes, *, is_folder: bool) -> bool | None:
        """Whether `path` (absolute) is ignored; None if no pattern matches."""
        inner = os.fsdecode(path[len(self._base) :]).lstrip("/")
        slash = "/" if is_folder else ""
        as_is, by_letters = _seen(inner, slash), None
        for pattern, placed, in_letters in self._lines:
            if in_letters and by_letters is None:
                by_letters = _seen(unicodedata.normalize("NFC", inner), slash)
            name, path_inside, above = by_letters if in_letters and by_letters else as_is
            if placed:
                matches = pattern.match_file(path_inside) and not (above and pattern.match_file(above))
            else:
                matches = pattern.match_file(name)
            if matches:
                return pattern.include
        return None


def is_ignored(path: bytes, sources: Iterable[Patterns], *, is_folder: bool) -> bool:
    """Whether `path` (absolute) is ignored, by the first of `sources` that has a verdict on it."""
    verdicts = (patterns.verdict(path, is_folder=is_folder) for patterns in sources)
    return next((verdict for verdict in verdicts if verdict is not None), False)


def _seen(inner: str, slash: str) -> tuple[str, str, str]:
    """Name, relative path and parent folder of a file or folder, as patterns match them; folders end with a slash."""
    above, _, name = inner.rpartition("/")
    return name + slash, inner + slash, above and above + "/"


def _compiled(line: str, source: str) -> Iterator[tuple[Pattern, bool, bool]]:
    """Yield the pattern of a line, if it has one, whether it contains a slash, and whether it matches NFC names."""
    from pathspec import GitIgnoreSpec

    forms = [(line, False)]
    if not line.isascii():
        forms.append((unicodedata.normalize("NFC", line), True))
    for form, in_letters in forms:
        try:
            spec = GitIgnoreSpec.from_lines([form])
        except ValueError as error:
            raise InputError(f"{source}: {error}") from error
        placed = "/" in form.strip().removeprefix("!").rstrip("/")
        yield from ((pattern, placed, in_letters) for pattern in spec.patterns if pattern.include is not None)


def read_patterns(folder: bytes) -> Patterns:
    """Read the ignore file in `folder`.

    Raises:
        InputError: it cannot be read, or has an invalid pattern.
    """
    path = os.fsdecode(os.path.join(folder, os.fsencode(IGNORE_FILE)))
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a FIFO would block for ever
            raise InputError(f"{path} is no regular file.")
        return Patterns(folder, read_list_in(path).decode("utf-8", "surrogateescape").splitlines(), path)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
