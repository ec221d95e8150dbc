"""Restores files that a killed run had moved aside, for the commands that move files aside."""

from __future__ import annotations

from collections.abc import Iterable

from clipsearch.cli.talk import say
from clipsearch.errors import InputError


def put_back_leftovers(folders: Iterable[bytes]) -> None:
    """Restore files that were moved aside in `folders` (absolute), and report them.

    Raises:
        InputError: a file cannot be restored.
    """
    from clipsearch.output.paths import printable, shown
    from clipsearch.system.naming import restore

    try:
        for _, path in restore(folders):
            say(f"Put back {printable(shown(path))}, which a run that was killed had put aside.")
    except OSError as error:
        raise InputError(f"What a run that was killed had put aside cannot be put back: {error}.") from error
