"""How far work has come: what long steps report, and what a progress bar, or nothing, makes of it."""

from __future__ import annotations


class Progress:
    """Reports of work that takes long. This one shows nothing; whoever shows something overrides what it needs.

    All methods are called from the thread that does the work.
    """

    def searching(self, files: int) -> None:
        """`files` image files have been found so far."""

    def start(self, total: int) -> None:
        """Work on `total` images begins."""

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        """`files` more images are done; `unreadable` of them cannot be read, `known` of them took no model."""

    def downloading(self, done: int, total: int) -> None:
        """`done` of `total` bytes of a model are there."""


SILENT = Progress()
