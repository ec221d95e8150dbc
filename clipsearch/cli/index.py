"""`clipsearch index`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import (
    DeviceOption,
    EngineOption,
    IndexOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    VerboseOption,
    WaitOption,
    say,
    writing_output,
)
from clipsearch.cli.watch import WatchOptions, keep_up
from clipsearch.models.encoder_options import EncoderOptions, Engine, Precision

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.api import IndexingModel
    from clipsearch.images.files import Rules
    from clipsearch.index.summary import Summary
    from clipsearch.index.updating import UpdateOptions
    from clipsearch.system.progress import Progress

EXIT_STRICT = 2
_MILLION = 1_000_000


@dataclass(frozen=True)
class ComputingOptions:
    """The options for the model that makes the vectors."""

    model: ModelOption = None
    device: DeviceOption = "auto"
    precision: PrecisionOption = Precision.AUTO
    engine: EngineOption = Engine.AUTO
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="B",
            min=1,
            help="The number of images in a batch. By default one that suits the device.",
            show_default=False,
        ),
    ] = None
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Decode and resize images in full and compute in fp32: slower, with exactly the numbers of CLIP.",
        ),
    ] = False

    def encoder(self) -> EncoderOptions:
        """Return the options for the model."""
        return EncoderOptions(self.device, self.precision.value, self.batch_size, self.exact, self.engine.value)


@dataclass(frozen=True)
class RulesOptions:
    """The options for which files are indexed."""

    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            help="Leave out files and folders that match, with the rules of .gitignore. May be repeated. This option "
            "and the next six are stored: a later run without any of the seven uses them again.",
            show_default=False,
        ),
    ] = None
    include_hidden: Annotated[
        bool | None,
        typer.Option(
            "--include-hidden/--no-include-hidden",
            help="Include files and folders whose names begin with a dot.",
            show_default=False,
        ),
    ] = None
    follow_symlinks: Annotated[
        bool | None,
        typer.Option(
            "--follow-symlinks/--no-follow-symlinks",
            help="Follow links to folders; each folder is read once.",
            show_default=False,
        ),
    ] = None
    by_name_only: Annotated[
        bool | None,
        typer.Option(
            "--by-name-only/--no-by-name-only",
            help="Take only files that are named like pictures. By default files without a suffix, or with an unknown "
            "one, are opened to find out.",
            show_default=False,
        ),
    ] = None
    include_backups: Annotated[
        bool | None,
        typer.Option(
            "--include-backups/--no-include-backups",
            help="Include backups and partial copies of pictures: photo.jpg~, photo.jpg.bak, photo.jpg.part.",
            show_default=False,
        ),
    ] = None
    include_system: Annotated[
        bool | None,
        typer.Option(
            "--include-system/--no-include-system",
            help="Include folders of systems for thumbnails and deleted files: @eaDir, $RECYCLE.BIN, *.lrdata ...",
            show_default=False,
        ),
    ] = None

    archives: Annotated[
        bool | None,
        typer.Option(
            "--archives/--no-archives",
            help="Read the pictures in .tar, .zip and .cbz files in the folders, too. An archive that is named itself "
            "is always read.",
            show_default=False,
        ),
    ] = None

    def rules(self) -> Rules | None:
        """Return the rules that are asked for; None if there are none, so that roots keep theirs."""
        from clipsearch.images.files import Rules

        if self == RulesOptions() or self == RulesOptions(exclude=[]):
            return None
        if self.by_name_only and self.include_backups:
            raise typer.BadParameter("--by-name-only opens no file, and so no backup; leave --include-backups out")
        others = {name: bool(value) for name, value in vars(self).items() if name != "exclude"}
        return Rules(tuple(self.exclude or ()), **others)


@dataclass(frozen=True)
class TalkOptions:
    """The options for messages."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False
    verbose: VerboseOption = False

    def begin(self) -> None:
        """Show the log as the options say."""
        from clipsearch.cli.log import show_log

        if self.quiet and self.verbose:
            raise typer.BadParameter("--quiet and --verbose contradict each other; leave one of them out")
        show_log(verbose=self.verbose, quiet=self.quiet)


@dataclass(frozen=True)
class ClusterOptions:
    """The options for work on several machines."""

    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="auto|HOST:PORT",
            help="Embed on the machines of a Ray cluster, on one of which this command runs; auto takes that which "
            "runs here. All of them need the pictures under the same paths.",
            show_default=False,
        ),
    ] = None

    parts: Annotated[
        int | None,
        typer.Option(
            "--parts",
            metavar="N",
            min=1,
            help="With --ray, for the first run: workers make indexes of N parts themselves, which are merged. For "
            "clusters that embed more than some thousand images a second.",
            show_default=False,
        ),
    ] = None

    def update(
        self,
        computing: ComputingOptions,
        folder: Path,
        paths: Sequence[Path],
        *,
        progress: Progress,
        **options: Unpack[UpdateOptions],
    ) -> tuple[IndexingModel, Summary]:
        """Update an index in this process or on a cluster, and return the model and a summary."""
        if self.ray is not None:
            from clipsearch.distributed.running import ClusterModel, update_on_cluster

            chosen = ClusterModel(computing.model, progress=progress)
            return chosen, update_on_cluster(
                self.ray, folder, paths, chosen, computing.encoder(), progress=progress, parts=self.parts, **options
            )
        if self.parts is not None:
            raise typer.BadParameter("--parts is for a cluster (--ray); on one machine, --part I/N makes one part")
        from clipsearch.api import IndexingModel
        from clipsearch.index.updating import update

        model = IndexingModel(computing.model, options=computing.encoder(), progress=progress)
        return model, update(folder, paths, model, progress=progress, **options)


@grouped
def index(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Folders, archives or image files. By default all folders of the index.",
            show_default=False,
        ),
    ] = None,
    *,
    computing: ComputingOptions,
    index: IndexOption = None,
    which: RulesOptions,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            metavar="MILLIONS",
            min=1,
            help="Do not decode images with more pixels. By default as many as fit this machine's memory.",
            show_default=False,
        ),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="Accept a folder without images, and remove its images from the index. Without it, that is an error.",
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="I/N",
            help="Index only part I of N, which share the files evenly by their paths: for several machines, whose "
            "indexes are merged later. The index stores it.",
            show_default=False,
        ),
    ] = None,
    reread: Annotated[
        bool, typer.Option("--reread", help="Read every file, even if its size and times have not changed.")
    ] = False,
    skip_damaged: Annotated[
        bool | None,
        typer.Option(
            "--skip-damaged/--no-skip-damaged",
            help="Refuse damaged pictures. By default they are indexed if at least half of the picture is there. This "
            "option is stored.",
            show_default=False,
        ),
    ] = None,
    regions: Annotated[
        bool | None,
        typer.Option(
            "--regions/--no-regions",
            help="Embed also overlapping parts of pictures that are clearly larger than what the model sees, so that "
            "small things are found, and where they are; --no-regions deletes them. This option is stored.",
            show_default=False,
        ),
    ] = None,
    codes: Annotated[
        bool | None,
        typer.Option(
            "--codes/--no-codes",
            help="Make short codes of all vectors, for query --approximate in an index that does not fit into memory; "
            "--no-codes deletes them. This option is stored.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if a file could not be read or is damaged.")
    ] = False,
    cluster: ClusterOptions,
    wait: WaitOption = 0,
    watching: WatchOptions,
    talk: TalkOptions,
    json: JsonOption = False,
) -> int:
    """Make or update the index of folders with images.

    Only new and changed images are embedded. The index is written to .clipsearch in the current folder. It may be
    interrupted at any time: the next run goes on from there. Files to leave out can also be listed in .clipsearchignore
    files.
    """
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.index_choice import index_folder

    talk.begin()
    asked: UpdateOptions = {
        "rules": which.rules(),
        "allow_empty": allow_empty,
        "reread": reread,
        "part": part,
        "wait": wait,
        "max_pixels": max_pixels and max_pixels * _MILLION,
        "skip_damaged": skip_damaged,
        "regions": regions,
        "codes": codes,
    }
    watching.check(strict=strict, reread=reread, cluster=cluster.ray)
    with ProgressBar(quiet=talk.quiet) as bar:
        place = index_folder(index, may_be_new=bool(paths))
        if watching.watch:
            name, how = computing.model, computing.encoder()
            chosen, watch, first = watching.begin(place, paths or [], model=name, computing=how, progress=bar, **asked)
        else:
            watch, (chosen, *first) = None, cluster.update(computing, place, paths or [], progress=bar, **asked)
    show_json = partial(_print_json, chosen=chosen, indent=None if watch else 2) if json else None
    for summary in first:
        _show(summary, chosen, talk, index, show_json, strict=strict)
    if watch:
        keep_up(watch, first, show_json, index, quiet=talk.quiet)
    return EXIT_STRICT if strict and any(summary.unreadable or summary.damaged for summary in first) else 0


def _print_json(summary: Summary, *, chosen: IndexingModel, indent: int | None) -> None:
    from clipsearch.output.reports import summary_json

    with writing_output():
        sys.stdout.buffer.write(summary_json(summary, chosen.computed(), indent))


def _show(
    summary: Summary,
    chosen: IndexingModel,
    talk: TalkOptions,
    index: Path | None,
    show_json: Callable[[Summary], None] | None,
    *,
    strict: bool,
) -> None:
    for line in filter(None, _lines(summary, chosen, talk, index, strict=strict)):
        say(line)
    if show_json:
        show_json(summary)


def _lines(
    summary: Summary, chosen: IndexingModel, talk: TalkOptions, index: Path | None, *, strict: bool
) -> Iterator[str]:
    """Yield the messages about a run, some of which may be empty."""
    from clipsearch.models.disk.catalog import BUNDLED, PICTUREBOOK_NOTE
    from clipsearch.output import reports

    used = chosen.computed()
    if strict or not talk.quiet:
        yield reports.unreadable_text(summary.unreadable)
        yield reports.damaged_text(summary)
    if not talk.quiet:
        yield reports.merged_text(summary)
        yield reports.kept_text(summary.kept, index)
        yield reports.passed_over_text(summary)
        yield reports.summary_text(summary)
        yield reports.computed_text(used) if used else ""
        yield f"Note: {PICTUREBOOK_NOTE}" if used and chosen.choice.name == BUNDLED else ""
    if talk.verbose and not used:
        yield f"model: {chosen.choice.name}, not loaded: there was nothing to embed"
