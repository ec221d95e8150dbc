"""Finds the nearest index from a folder upwards."""

from __future__ import annotations

import os
from pathlib import Path

from clipsearch.errors import IndexMissingError
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store
from clipsearch.system.paths import logical_folder


def find_index(start: Path) -> Path:
    """Find the nearest index folder in `start` or in a folder above it.

    Raises:
        IndexMissingError: there is none.
    """
    start = start.absolute()
    # If the shell entered the folder through a link, the folders above that link are searched last.
    shell = logical_folder(os.fsencode(start))
    typed = () if shell is None else (Path(os.fsdecode(shell)), *Path(os.fsdecode(shell)).parents)
    for folder in (start, *start.parents, *typed):
        if Store.exists(folder / FOLDER):
            return folder / FOLDER
    raise IndexMissingError(
        f"No index in {start} or any folder above it.", hint=("make-index", "name-index"), folder=start
    )
