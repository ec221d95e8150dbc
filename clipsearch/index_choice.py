"""Which index is meant: the one that is named, else the nearest from the current folder upwards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipsearch.errors import IndexMissingError, InputError
from clipsearch.index.format import FOLDER
from clipsearch.index.nearest import find_index
from clipsearch.index.reading import Store
from clipsearch.system.paths import absolute, same_place
from clipsearch.system.places import current_folder


def named_index(given: str | os.PathLike[str] | None) -> Path | None:
    """Return the index folder that `given`, or else `CLIPSEARCH_INDEX`, names; None if neither does.

    The name may be that of the index folder or of the folder that contains it. It need not exist.

    Raises:
        InputError: `given` is empty.
    """
    if given is not None and not os.fspath(given):
        raise InputError("The name of an index folder is empty. Leave it out to take the nearest index.")
    named = given or os.environ.get("CLIPSEARCH_INDEX")
    if not named:
        return None
    folder = Path(os.path.expanduser(named))
    return folder / FOLDER if os.path.isdir(folder / FOLDER) else folder


def index_folders(given: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the index folders that are named (see `named_index`), or that patterns of the shell match, in order.

    Raises:
        IndexMissingError: no index matches a pattern.
        InputError: a name is empty.
    """
    return list(dict.fromkeys(folder for one in given for folder in _matching(one)))


def _only(named: Path) -> Path:
    """Return an index folder that is named, or raise an InputError if its name is a pattern for indexes."""
    if _is_pattern(named) and any(map(Store.exists, _matching(named))):
        raise InputError(f"{named} are several indexes; this takes one.", hint="merge-first")
    return named


def _is_pattern(path: str | os.PathLike[str]) -> bool:
    return any(mark in os.fspath(path) for mark in "*?[") and not os.path.lexists(os.path.expanduser(path))


def _matching(given: str | os.PathLike[str]) -> list[Path]:
    if not _is_pattern(given):
        return [folder] if (folder := named_index(given)) else []
    from glob import glob

    paths = sorted(glob(os.fspath(os.path.expanduser(given))))
    found = [folder for path in paths if (folder := named_index(path)) and Store.exists(folder)]
    if not found:
        raise IndexMissingError(f"No index matches {os.fspath(given)}.", hint="make-index", folder="PATH")
    return found


def index_folder(given: str | os.PathLike[str] | None = None, *, may_be_new: bool = False) -> Path:
    """Return the index folder that is named (see `named_index`), else the nearest from the current folder upwards.

    If the index `may_be_new`, the default is the one in the current folder, which need not exist.

    Raises:
        IndexMissingError: no index is named, and none is found.
        InputError: `given` is empty, or there is no current folder.
    """
    if named := named_index(given):
        return named if may_be_new else _only(named)
    return current_folder() / FOLDER if may_be_new else find_index(current_folder())


def indexes_to_search(given: Sequence[str | os.PathLike[str]]) -> tuple[list[Path], Path | None]:
    """Return the index folders that are named or that patterns match (see `index_folders`), and the folder to search.

    Without a name, `CLIPSEARCH_INDEX` is one. If that is not set either, the rest is as for `index_to_search`.
    """
    if not given and (named := os.environ.get("CLIPSEARCH_INDEX")):
        given = [named]
    if given:
        return index_folders(given), None
    folder, below = index_to_search(None)
    return [folder], below


def index_to_search(given: str | os.PathLike[str] | None) -> tuple[Path, Path | None]:
    """Return the index folder as `index_folder` does, and the folder to search in; None for all folders of the index.

    If the index is found above the current folder, only the current folder is searched.
    """
    if named := named_index(given):
        return _only(named), None
    here = current_folder()
    found = find_index(here)
    return found, None if same_place(absolute(found.parent), absolute(here)) else here
