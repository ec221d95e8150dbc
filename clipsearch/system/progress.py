"""The protocol by which long work reports its progress."""

from __future__ import annotations


class Progress:
    """Receiver of reports from work that takes long. This class shows nothing; a subclass overrides what it shows.

    All methods are called from the thread that does the work.
    """

    def searching(self, files: int) -> None:
        """Report that `files` image files have been found so far."""

    def start(self, total: int) -> None:
        """Report that work on `total` images begins."""

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        """Report `files` more images as done, of which `unreadable` cannot be read and `known` needed no model."""

    def expect(self, left: int) -> None:
        """Report that `left` images are still to be done, which is known better now than when work began."""

    def downloading(self, done: int, total: int) -> None:
        """Report that `done` of `total` bytes of a model have arrived."""

    def stepped(self, done: int, total: int, said: str) -> None:
        """Report that `done` of `total` steps of a training are done, and in `said` how well it goes."""


SILENT = Progress()
