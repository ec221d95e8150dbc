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
"""Patterns of what to leave out, with the rules of .gitignore."""


class Patterns:
    """The lines of one ignore file, seen from the folder `base`.

    Each line is asked about a file or folder itself, never about the folders above, which were entered because they
    are not left out. Asked about whole paths, pathspec would let the verdict on a folder pass on to all in it: after
    `*` and `!*/`, everything below the first level would count.

    A line that is not ASCII also matches names with the same letters in another form: who types `Fotos für Opa` means
    the folder, however it is stored. That would be wrong only where one folder has two names with the same letters, one
    of which is meant; both are left out then.
    """

    def __init__(self, base: bytes, lines: Iterable[str], source: str) -> None:
        self._base = base
        self._lines = [found for line in lines for found in _compiled(line, source)][::-1]
        """Last first, since the last one that matches decides; and whether it says where, not only what."""

    def verdict(self, path: bytes, *, is_folder: bool) -> bool | None:
        """Whether `path` (absolute) is left out; None if no line says."""
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


def _seen(inner: str, slash: str) -> tuple[str, str, str]:
    """Name, path and folder of a file or folder as patterns see them; folders end with a slash."""
    above, _, name = inner.rpartition("/")
    return name + slash, inner + slash, above and above + "/"


def _compiled(line: str, source: str) -> Iterator[tuple[Pattern, bool, bool]]:
    """The pattern of a line, if it has one; whether it says where; and whether it is for names by their letters."""
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
    """Those of the ignore file in `folder`.

    Raises:
        InputError: it cannot be read, or has a line that means nothing.
    """
    path = os.fsdecode(os.path.join(folder, os.fsencode(IGNORE_FILE)))
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a FIFO would have us wait for ever
            raise InputError(f"{path} is no regular file.")
        return Patterns(folder, read_list_in(path).decode("utf-8", "surrogateescape").splitlines(), path)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
