"""What an update of an index searches: which roots, or parts of them, under which names, and by which rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.parts import Part
from clipsearch.index.format import Root
from clipsearch.system.paths import is_below, second_names


def everything(_file: ImageFile) -> bool:
    """Take every file."""
    return True


class Target(NamedTuple):
    """A root, or a part of one, that an update searches."""

    root: bytes
    start: bytes
    """Where the search starts: the root itself, or a file or folder below it."""
    rules: Rules
    retry: bool = False
    """Whether to try unreadable files again although they are unchanged."""
    reread: bool = False
    """Whether to read every file, changed or not."""
    others: tuple[bytes, ...] = ()
    """The other roots, which the search does not enter through links."""
    skip_damaged: bool = False
    """Whether damaged images are refused."""
    readers: str = ""
    """The formats and sizes that can be read now. If they have changed, unreadable files are tried again."""
    part: Part | None = None
    """The part of the root whose files are taken; None for all."""
    takes: Callable[[ImageFile], bool] = everything
    """Whether a file that is new, or has another size or time, is read now. Others stay as the index has them."""

    def options(self, readers: str | None, passed_over: Mapping[str, int]) -> dict[str, object]:
        """Return the options that the index stores for the root: rules, readable formats, and what was left out."""
        remembered = {"skip_damaged": self.skip_damaged, "readers": readers, "passed_over": dict(passed_over)}
        return self.rules.to_json() | remembered


def targets(
    paths: Iterable[bytes],
    roots: Iterable[Root],
    rules: Rules | None,
    readers: str,
    *,
    reread: bool = False,
    skip_damaged: bool | None = None,
    part: Part | None = None,
    takes: Callable[[ImageFile], bool] = everything,
) -> list[Target]:
    """Make the targets of an update.

    Args:
        paths: absolute paths, with the names that `names_of` returns.
        roots: those of the index.
        rules: which files to take; None for those that the index stores for a root.
        readers: the formats and sizes that can be read now.
        reread: whether to read every file, changed or not.
        skip_damaged: whether to refuse damaged images; None for what the index stores for a root.
        part: the part of each root whose files are taken; None for all.
        takes: whether a file that is new, or has another size or time, is read now.
    """
    found: list[Target] = []
    for path in sorted(paths):
        if any(is_below(path, other.start) for other in found):
            continue
        known = next((root for root in roots if is_below(path, root.path)), Root(path, {}))
        retry = known.options.get("readers") != readers
        skips = bool(known.options.get("skip_damaged")) if skip_damaged is None else skip_damaged
        used = rules or Rules.from_json(known.options)
        target = Target(known.path, path, used, retry, reread, skip_damaged=skips, readers=readers)
        found.append(target._replace(part=part, takes=takes))
    tops = sorted({root.path for root in roots} | {target.root for target in found})
    return [
        target._replace(others=tuple(top for top in tops if not is_below(top, target.root)))
        if target.rules.follow_symlinks
        else target
        for target in found
    ]


def names_of(paths: Iterable[bytes], roots: Iterable[Root]) -> dict[bytes, bytes]:
    """Find paths and roots (absolute) that lie in another root under a second name, and return their names in it.

    Known roots have priority over new ones, and names without links over names with links.
    """
    known = [root.path for root in roots]

    def rank(path: bytes) -> tuple[bool, bool, bytes]:
        return path not in known, os.path.realpath(path) != path, path

    return second_names(sorted({*known, *paths}, key=rank))
