"""The exceptions of clipsearch. Their messages say in whole sentences what is wrong, and where.

What to type about it is no part of the message: an error carries the keys of hints, whose words are in `output.hints`.
"""

from __future__ import annotations


class ClipsearchError(Exception):
    """The base class of all errors that clipsearch raises."""

    def __init__(self, message: str = "", *, hint: str | tuple[str, ...] = (), **facts: object) -> None:
        """Make an error.

        Args:
            message: what is wrong, and where.
            hint: the key of the hint that the command line adds, or several.
            facts: the values that the words of the hints contain.
        """
        super().__init__(message)
        self.hints = (hint,) if isinstance(hint, str) else hint
        self.facts = facts


class InputError(ClipsearchError):
    """An argument, file or setting is invalid."""


class StoreError(InputError):
    """An object store or web server cannot be used: it refuses, does not answer, or has no such place."""


class NothingFoundError(InputError):
    """There are no images, or too few. Like a search without hits, this is exit code 1 and not 2."""


class OutputError(ClipsearchError):
    """Standard output cannot be written, for example because the disk is full."""


class UnreadableImageError(ClipsearchError):
    """A file is not an image, or is broken. The message is the reason, without the path."""


class IndexMissingError(ClipsearchError):
    """There is no index in the folder."""


class IndexUnfinishedError(ClipsearchError):
    """There is an index, but the run that makes it has not recorded any image yet."""


class IndexDamagedError(ClipsearchError):
    """The index on disk contradicts itself or cannot be read."""


class IndexLockedError(ClipsearchError):
    """Another process is writing to the index."""


class IndexWriteError(ClipsearchError):
    """The index cannot be written: no space, no permission, or the disk fails."""


class ModelError(ClipsearchError):
    """A model is unknown, not available, incomplete or broken."""


class ModelMismatchError(ClipsearchError):
    """The index was made with another model."""


class DeviceError(ClipsearchError):
    """The device asked for is not available."""


class FileStaysError(ClipsearchError):
    """A file could not be removed or moved. The message is the reason, without the path."""


class NoTrashError(FileStaysError):
    """There is no trash for a file."""
