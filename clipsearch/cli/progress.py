"""The progress of `index`: on stderr, and only on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from clipsearch.cli.options import WAITING, say

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

_REDRAWS_A_SECOND = 10


class ProgressBar:
    """Images done, rate, time left and skips; silent where stderr is no terminal. Fits `indexing.Progress`."""

    def __init__(self, *, quiet: bool = False, doing: str = "Indexing") -> None:
        self._quiet = quiet
        self._doing = doing
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._skipped = 0
        self._done = self._known = 0
        """Images so far, and those of them that took no model."""
        self._resting: int | None = None
        """Of how many images the bar was that is not shown for now."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def waiting(self) -> None:
        """Say that another run has to finish first."""
        if not self._quiet:
            say(WAITING)

    def searching(self, files: int) -> None:
        """Show how many image files were found so far."""
        if self._is_shown() and self._bar is None:
            from rich.progress import SpinnerColumn, TextColumn

            self._open(SpinnerColumn(), TextColumn("Searching: {task.completed} images"), total=None)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=files)

    def rest(self) -> None:
        """Show nothing until `start` or `resume`: something else is about to be shown."""
        if self._bar and self._bar.tasks[0].total:
            self._resting = int(self._bar.tasks[0].total)
        self._stop()

    def resume(self) -> None:
        """Show the bar again that `rest` took away, if it did."""
        if self._resting is not None:
            done, known = self._done, self._known
            self.start(self._resting)
            self.advance(done, known=known)
            self._resting = None

    def start(self, total: int) -> None:
        """Show a bar for `total` images."""
        self._stop()
        self._done = self._known = 0
        if self._is_shown():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

            self._open(
                TextColumn(self._doing),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("images{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[skips]}"),
                total=total,
            )

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        """So many more are done; so many of them were skipped, so many had a vector already."""
        self._skipped += unreadable
        self._done += files
        self._known += known
        if self._bar and self._task is not None:
            # Those with a vector pass a thousand times as fast, and say nothing of how long the others take.
            speed = (self._bar.tasks[0].speed or 0) * (self._done - self._known) / max(1, self._done)
            self._bar.update(
                self._task,
                advance=files,
                rate=f", {speed:.0f}/s" if speed >= 1 else "",
                skips=f"{self._skipped} unreadable" if self._skipped else "",
            )

    def _is_shown(self) -> bool:
        return not self._quiet and sys.stderr is not None and sys.stderr.isatty()

    def _open(self, *columns: ProgressColumn, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(
            *columns, console=Console(stderr=True), refresh_per_second=_REDRAWS_A_SECOND, transient=total is None
        )
        self._task = self._bar.add_task("index", total=total, rate="", skips="")
        self._bar.start()

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
