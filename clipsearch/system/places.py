"""Whether a path is there, and the current folder: two questions that the system may refuse to answer.

`Path.exists` and its like raise before Python 3.14 where a folder on the way may not be searched.
"""

from __future__ import annotations

import os
from pathlib import Path

from clipsearch.errors import InputError


def current_folder() -> Path:
    """The folder that relative paths start at.

    Raises:
        InputError: it was deleted, or the system does not name it.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise InputError(f"The current folder is gone ({error.strerror}). Go to another one: cd DIR") from error


def check_current_folder() -> None:
    """For what cannot do without one, whichever it is.

    Raises:
        InputError: there is none.
    """
    current_folder()


def below_home(path: Path) -> Path:
    """`path` as a library built it from the user's home folder.

    Raises:
        InputError: it is none, for there is no such folder: ~ is all that is known of it.
    """
    if path.parts[:1] == ("~",):
        raise InputError("There is no home folder: HOME is not set, and the system knows none for this user. Set HOME.")
    return path


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether there is something at `path`, as far as links lead; what cannot be a path is not there.

    Raises:
        InputError: the system does not say, for lack of a permission as a rule.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in a name
        return False
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be looked at: {error.strerror}.") from error
    return True
