"""Files that a run which was killed had put aside, for the commands that put files aside."""

from __future__ import annotations

from collections.abc import Iterable

from clipsearch.cli.talk import say
from clipsearch.errors import InputError


def put_back_leftovers(folders: Iterable[bytes]) -> None:
    """Put back what lies aside in `folders` (absolute), and say so.

    Raises:
        InputError: a folder cannot be changed.
    """
    from clipsearch.output.paths import printable, shown
    from clipsearch.system.naming import restore

    try:
        for _, path in restore(folders):
            say(f"Put back {printable(shown(path))}, which a run that was killed had put aside.")
    except OSError as error:
        raise InputError(f"What a run that was killed had put aside cannot be put back: {error}.") from error
