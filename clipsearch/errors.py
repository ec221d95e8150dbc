"""The errors that a user can meet: what is wrong, and where, in whole sentences.

What to do about it on the command line is not theirs to say: they carry a key, and `output.hints` has the words.
"""

from __future__ import annotations


class ClipsearchError(Exception):
    """Base of all errors that clipsearch raises on purpose."""

    def __init__(self, message: str = "", *, hint: str | tuple[str, ...] = (), **facts: object) -> None:
        """`hint` is the key of what the command line adds to `message`, or several; `facts` are what its words need."""
        super().__init__(message)
        self.hints = (hint,) if isinstance(hint, str) else hint
        self.facts = facts


class InputError(ClipsearchError):
    """A path, text or setting that cannot be used."""


class NothingFoundError(InputError):
    """There is nothing to show: no image, or too few of them. No mistake, so the exit code is 1 as for any search."""


class OutputError(ClipsearchError):
    """Standard output cannot be written: the disk behind it is full, say."""


class UnreadableImageError(ClipsearchError):
    """A file that is no image, or a broken one. Its text is the reason, without the path."""


class IndexMissingError(ClipsearchError):
    """There is no index where one was looked for."""


class IndexUnfinishedError(ClipsearchError):
    """There is an index, but the run that makes it has not recorded an image yet."""


class IndexDamagedError(ClipsearchError):
    """The index on disk contradicts itself or cannot be read."""


class IndexLockedError(ClipsearchError):
    """Another process is writing to the index."""


class IndexWriteError(ClipsearchError):
    """The index cannot be written: no space, no permission, or the disk fails."""


class ModelError(ClipsearchError):
    """A model that is unknown, unreachable, incomplete or broken."""


class ModelMismatchError(ClipsearchError):
    """The index was made with another model."""


class DeviceError(ClipsearchError):
    """The device asked for is not there."""


class FileStaysError(ClipsearchError):
    """A file that was to be removed or moved is where it was. Its text is the reason, without the path."""


class NoTrashError(FileStaysError):
    """There is no trash that takes a file."""
