"""`clipsearch index --watch`: its options, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.talk import say
from clipsearch.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Unpack

    from clipsearch.api import IndexingModel
    from clipsearch.index.summary import Summary
    from clipsearch.index.updating import UpdateOptions
    from clipsearch.index.watching import Watch
    from clipsearch.models.encoder_options import EncoderOptions
    from clipsearch.system.progress import Progress


@dataclass(frozen=True)
class WatchOptions:
    """The options for an index that is kept up to date."""

    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Stay after that, and keep the index up to date: new, changed, moved and deleted pictures are in it "
            "within seconds. Ctrl-C ends it.",
        ),
    ] = False
    poll: Annotated[
        float | None,
        typer.Option(
            "--poll",
            metavar="SECONDS",
            min=1,
            help="With --watch: search the folders every so many seconds, instead of being told of changes. For "
            "network drives and object stores, where nobody tells.",
            show_default=False,
        ),
    ] = None

    def check(self, *, strict: bool, reread: bool, cluster: str | None) -> None:
        """Raise an InputError if the options contradict each other."""
        if self.poll is not None and not self.watch:
            raise InputError("--poll is for --watch.")
        if self.watch and (strict or reread):
            raise InputError("--watch has no end to judge, and reads what changes: leave --strict and --reread out.")
        if self.watch and cluster is not None:
            raise InputError("--watch embeds on this machine: leave --ray out.")

    def begin(
        self,
        folder: Path,
        paths: Sequence[Path],
        *,
        model: str | None,
        computing: EncoderOptions,
        progress: Progress,
        **options: Unpack[UpdateOptions],
    ) -> tuple[IndexingModel, Watch, list[Summary]]:
        """Begin to watch, make the first update of the index in `folder`, and return its summary or summaries.

        Raises:
            InputError: watchfiles is not installed, or a path cannot be searched.
        """
        from clipsearch.api import IndexingModel
        from clipsearch.index.watching import Watch
        from clipsearch.system.events import Polling, SystemEvents

        events = SystemEvents() if self.poll is None else Polling(self.poll)
        chosen = IndexingModel(model, options=computing, progress=progress)
        watch = Watch(folder, paths, chosen, events, max_pixels=options.get("max_pixels"))
        return chosen, watch, watch.begin(progress, **options)


def keep_up(
    watch: Watch,
    first: Sequence[Summary],
    show_json: Callable[[Summary], None] | None,
    index: Path | None,
    *,
    quiet: bool,
) -> None:
    """Say what each update after the `first` ones has changed, until Ctrl-C.

    `show_json` prints a summary as JSON, if that is asked for; `index` is the value of `--index`.
    """
    told = {problem for summary in first for problem in _problems(summary)}
    if not quiet:
        say("Watching for changes. Ctrl-C ends it.")
    with closing(watch):
        for summary in watch.go_on():
            lines = list(_news(summary, told, index))
            for line in lines if not quiet else []:
                say(line)
            if lines and show_json:
                show_json(summary)


def _problems(summary: Summary) -> set[object]:
    return {*summary.unreadable, *summary.kept}


def _news(summary: Summary, told: set[object], index: Path | None) -> Iterator[str]:
    """Yield the messages about an update; what was told stays in `told`, so that nothing is said twice."""
    from clipsearch.output import reports

    new = [problem for problem in summary.unreadable if problem not in told]
    kept = [folder for folder in summary.kept if folder not in told]
    told |= _problems(summary)
    told_of = [
        reports.unreadable_text(new),
        reports.damaged_text(summary),
        reports.merged_text(summary),
        reports.kept_text(kept, index),
        reports.changes_text(summary),
    ]
    yield from filter(None, told_of)
