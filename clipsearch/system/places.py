"""Existence of paths, the current folder and the home folder, with errors for users if the system does not answer.

Before Python 3.14, `Path.exists` and similar methods raise if a folder on the way may not be searched.
"""

from __future__ import annotations

import os
from pathlib import Path

from clipsearch.errors import InputError


def current_folder() -> Path:
    """Return the current folder.

    Raises:
        InputError: it was deleted, or cannot be determined.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise InputError(f"The current folder is gone ({error.strerror}). Go to another one: cd DIR") from error


def check_current_folder() -> None:
    """Check that there is a current folder.

    Raises:
        InputError: it was deleted, or cannot be determined.
    """
    current_folder()


def below_home(path: Path) -> Path:
    """Return `path`, which a library built from the user's home folder, after checking that there is one.

    Raises:
        InputError: there is no home folder, so that the path still begins with ~.
    """
    if path.parts[:1] == ("~",):
        raise InputError("There is no home folder: HOME is not set, and the system knows none for this user. Set HOME.")
    return path


def is_there(path: str | os.PathLike[str]) -> bool:
    """Return whether `path`, or what it links to, exists; False if it cannot be a path.

    Raises:
        InputError: the system does not say, usually for lack of permission.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in a name
        return False
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be looked at: {error.strerror}.") from error
    return True
