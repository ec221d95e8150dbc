"""The progress bar of a command, on stderr, and only if that is a terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clipsearch.cli import talk
from clipsearch.system.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn, TaskID

_REDRAWS_A_SECOND = 10
_RATE_SECONDS = 30
"""The time over which a rate is averaged."""


class _Rate:
    """The rate of images that took work. Those that have a vector already are a thousand times faster and left out.

    The images of a batch arrive at once, so all that arrive between two drawings of the bar are one step.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()
        """Time of each step, and number of images done by then."""
        self._done = 0

    def add(self, images: int, now: float) -> None:
        """Count `images` that were done at the time `now`, in seconds."""
        if not images:
            return
        self._done += images
        if not self._steps or now - self._steps[-1][0] >= 1 / _REDRAWS_A_SECOND:
            self._steps.append((now, self._done))
        while now - self._steps[0][0] > _RATE_SECONDS and len(self._steps) > 2:  # noqa: PLR2004
            self._steps.popleft()

    def __str__(self) -> str:
        """Write the rate for the bar; empty as long as it is unknown."""
        if len(self._steps) < 2:  # noqa: PLR2004  (a rate needs two)
            return ""
        (began, before), (ended, after) = self._steps[0], self._steps[-1]
        rate = (after - before) / (ended - began)
        return f", {rate:.0f}/s" if rate >= 1 else ""


class ProgressBar(Progress):
    """A bar for files found, images done, or bytes of a download, one at a time; none if stderr is no terminal."""

    def __init__(self, *, quiet: bool = False, doing: str = "Indexing", unit: str = "images") -> None:
        self._quiet = quiet
        self._doing, self._unit = doing, unit
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._total: int | None = None
        """Number of images, once work on them has begun."""
        self._done = self._unreadable = 0
        """Numbers of images so far, and of those that cannot be read."""
        self._rate = _Rate()
        self._is_download = self._is_training = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def searching(self, files: int) -> None:
        """Show the number of image files found so far."""
        if self._bar is None and self._is_shown():
            from rich.progress import SpinnerColumn, TextColumn

            self._open(SpinnerColumn(), TextColumn("Searching: {task.completed} images"), total=None)
        self._show(files)

    def start(self, total: int) -> None:
        """Show a bar for `total` images."""
        self._total = total
        self._done, self._rate = 0, _Rate()
        if self._is_shown():
            self._open_for_images()

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        """Advance the bar; only images that took work count for the rate."""
        self._unreadable += unreadable
        self._done += files
        if self._bar:
            self._rate.add(files - unreadable - known, time.monotonic())
            self._show(
                self._done,
                rate=str(self._rate),
                skips=f"{self._unreadable} unreadable" if self._unreadable else "",
            )

    def expect(self, left: int) -> None:
        """Let the bar end after `left` further images."""
        self._total = self._done + left
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=self._total)

    def step(self, note: str) -> None:
        """Advance by one, and show a note at the end of the bar."""
        self._done += 1
        if self._bar:
            self._rate.add(1, time.monotonic())
            self._show(self._done, rate=str(self._rate), skips=note)

    def downloading(self, done: int, total: int) -> None:
        """Show a bar for a download, in place of the one for images until the download is complete."""
        if not self._is_download and done < total and self._is_shown():
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

            self._is_download = True
            self._open(
                TextColumn("Downloading"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                total=total,
            )
        if self._is_download:
            self._show(done)
        if self._is_download and done >= total:
            self._is_download = False
            self._stop()
            if self._total is not None:
                self._open_for_images()

    def stepped(self, done: int, total: int, said: str) -> None:
        """Show a bar for the steps of a training, in place of the one for images."""
        if not self._is_training and self._is_shown():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

            self._is_training = True
            self._open(
                TextColumn("Training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rate]}"),
                total=total,
            )
        self._show(done, rate=said)

    def _is_shown(self) -> bool:
        return not self._quiet and sys.stderr is not None and sys.stderr.isatty()

    def _open_for_images(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        self._open(
            TextColumn(self._doing),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{self._unit}{{task.fields[rate]}}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[skips]}"),
            total=self._total,
        )
        self._show(self._done)

    def _show(self, done: int, **fields: Any) -> None:  # noqa: ANN401  (rich's own type)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, **fields)

    def _open(self, *columns: ProgressColumn, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._stop()
        self._bar = Bar(
            *columns, console=Console(stderr=True), refresh_per_second=_REDRAWS_A_SECOND, transient=total is None
        )
        self._task = self._bar.add_task("work", total=total, rate="", skips="")
        self._bar.start()
        talk.above_the_bar = self._say

    def _say(self, message: str) -> None:
        """Write a message above the bar, without the line breaks and colours that rich would add."""
        from rich.text import Text

        if self._bar:
            self._bar.console.print(Text(message), soft_wrap=True)

    def _stop(self) -> None:
        talk.above_the_bar = None
        if self._bar:
            self._bar.stop()
            self._bar = None
