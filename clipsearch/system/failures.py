"""One-line messages for errors that are caused by the machine or its settings, not by a bug.

Knows nothing of what the program was doing.
"""

from __future__ import annotations

import errno
import os

from clipsearch.errors import InputError
from clipsearch.system.places import check_current_folder

_HINTS = {
    errno.EMFILE: "This process may not open more of them: raise the limit (ulimit -n)",
    errno.ENFILE: "The whole system has no more of them",
    errno.ENOSPC: "Make room on that disk, or name another place (TMPDIR for temporary files)",
    errno.ENOMEM: "Close other programs, or raise the limit (ulimit -v)",
}
_MEMORY = "There is not enough memory for this: close other programs, or raise the limit (ulimit -v)."
_THREADS = "No more threads can be started: too many processes run, or the limit is too low (ulimit -u)."
_NO_HOME = "There is no home folder: HOME is not set, and the system knows none for this user. Set HOME."
_OF_LIBRARIES = {
    "can't start new thread": _THREADS,
    "home directory": _NO_HOME,
    "cannot allocate": _MEMORY,
    "can't allocate": _MEMORY,
    "not enough memory": _MEMORY,
    "out of memory": _MEMORY,
    "failed to map segment": _MEMORY,
    "bad_alloc": _MEMORY,
    "too many open files": f"Too many open files. {_HINTS[errno.EMFILE]}.",
}
"""Part of a library's message in lower case, when the system refuses it something -> our message."""


def of_the_environment(error: BaseException) -> str | None:
    """Return a message about what the system refused; None if `error` may be a bug."""
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, OSError):
        return _refused(error)
    if isinstance(error, RuntimeError | ImportError):
        text = str(error).lower()
        return next((meaning for part, meaning in _OF_LIBRARIES.items() if part in text), None)
    return None


def is_shortage(error: Exception) -> bool:
    """Return whether memory, threads, open files or disk space ran out, so that the input is not to blame."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _HINTS):
        return True
    text = str(error).lower()
    return any(part in text for part, meaning in _OF_LIBRARIES.items() if meaning != _NO_HOME)


def _refused(error: OSError) -> str | None:
    if error.errno is None:  # raised by Python itself, such as for a stream that cannot be read
        return None
    if error.filename is None and isinstance(error, FileNotFoundError):
        try:
            check_current_folder()
        except InputError as gone:
            return str(gone)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = error.strerror or str(error)
    hint = _HINTS.get(error.errno)
    return f"{' to '.join(names)}{': ' if names else ''}{what}.{f' {hint}.' if hint else ''}"
