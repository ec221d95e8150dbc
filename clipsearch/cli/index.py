"""`clipsearch index`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.options import (
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    Precision,
    PrecisionOption,
    VerboseOption,
    WaitOption,
    say,
    writing_output,
)

if TYPE_CHECKING:
    from clipsearch.images.finding import Rules

EXIT_STRICT = 2
_MILLION = 1_000_000


def index(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Folders or image files. Without any: all that the index knows.",
            show_default=False,
        ),
    ] = None,
    *,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.AUTO,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="B",
            min=1,
            help="How many images the model computes together. By default what suits the device.",
            show_default=False,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Decode and resize images in full and compute in fp32: slower, the very numbers of CLIP."
        ),
    ] = False,
    index: IndexOption = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            help="Leave out files and folders, with the rules of .gitignore. May be repeated. Remembered, like the "
            "next five: a later run without any of the six uses them again.",
            show_default=False,
        ),
    ] = None,
    include_hidden: Annotated[
        bool | None,
        typer.Option(
            "--include-hidden/--no-include-hidden",
            help="Take in files and folders whose names begin with a dot.",
            show_default=False,
        ),
    ] = None,
    follow_symlinks: Annotated[
        bool | None,
        typer.Option(
            "--follow-symlinks/--no-follow-symlinks",
            help="Follow links to folders; each folder is read once.",
            show_default=False,
        ),
    ] = None,
    by_name_only: Annotated[
        bool | None,
        typer.Option(
            "--by-name-only/--no-by-name-only",
            help="Only files that are named like pictures. By default files without an ending, or with an unknown one, "
            "are looked into.",
            show_default=False,
        ),
    ] = None,
    include_backups: Annotated[
        bool | None,
        typer.Option(
            "--include-backups/--no-include-backups",
            help="Also spare and partial copies of pictures: photo.jpg~, photo.jpg.bak, photo.jpg.part.",
            show_default=False,
        ),
    ] = None,
    include_system: Annotated[
        bool | None,
        typer.Option(
            "--include-system/--no-include-system",
            help="Also folders in which systems keep thumbnails and deleted files: @eaDir, $RECYCLE.BIN, *.lrdata ...",
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            metavar="MILLIONS",
            min=1,
            help="Do not decode larger images. By default what fits this machine's memory.",
            show_default=False,
        ),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="Accept a folder without any image, and forget the images that were in it; otherwise it is an error.",
        ),
    ] = False,
    reread: Annotated[
        bool, typer.Option("--reread", help="Read every file, also where size and times say that nothing changed.")
    ] = False,
    skip_damaged: Annotated[
        bool | None,
        typer.Option(
            "--skip-damaged/--no-skip-damaged",
            help="Refuse pictures of which a part is missing; otherwise they are in the index if half of them is "
            "there. Remembered.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if a file could not be read or is damaged.")
    ] = False,
    wait: WaitOption = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> int:
    """Make or refresh the index of image folders.

    Only new and changed images are embedded. The index is written to .clipsearch in the current folder. Interrupt it
    at will: the next run goes on from there. What is left out can also stand in .clipsearchignore files.
    """
    from clipsearch.api import IndexingModel, index_folder
    from clipsearch.cli.log import show_log
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.index.updating import update
    from clipsearch.models.disk.catalog import BUNDLED, PICTUREBOOK_NOTE
    from clipsearch.models.in_torch.loading import EncoderOptions
    from clipsearch.output.reports import (
        computed_text,
        damaged_text,
        kept_text,
        merged_text,
        passed_over_text,
        summary_json,
        summary_text,
        unreadable_text,
    )

    if exact and precision not in (Precision.AUTO, Precision.FP32):
        raise typer.BadParameter(f"--exact computes in fp32; leave --precision {precision.value} away")
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose contradict each other; leave one of them away")
    started = time.perf_counter()
    show_log(verbose=verbose, quiet=quiet)
    bar = ProgressBar(quiet=quiet)
    chosen = IndexingModel(
        model,
        options=EncoderOptions(
            device=device,
            precision=Precision.FP32.value if exact else precision.value,
            batch_size=batch_size,
            exact=exact,
            engine="torch",
        ),
        progress=bar,
    )
    with bar:
        summary = update(
            index_folder(index, may_be_new=bool(paths)),
            paths or [],
            chosen,
            progress=bar,
            rules=_rules(
                exclude,
                include_hidden=include_hidden,
                follow_symlinks=follow_symlinks,
                by_name_only=by_name_only,
                include_backups=include_backups,
                include_system=include_system,
            ),
            allow_empty=allow_empty,
            reread=reread,
            wait=wait,
            max_pixels=max_pixels and max_pixels * _MILLION,
            skip_damaged=skip_damaged,
        )
    seconds = time.perf_counter() - started
    used = chosen.computed()
    lines = [unreadable_text(summary), damaged_text(summary)] if strict or not quiet else []
    if not quiet:
        lines += [merged_text(summary), kept_text(summary, index), passed_over_text(summary)]
        lines += [summary_text(summary, seconds), computed_text(used) if used else ""]
        lines += [f"Note: {PICTUREBOOK_NOTE}" if chosen.encoder and chosen.encoder.name == BUNDLED else ""]
    if verbose and not used:
        lines += [f"model: {chosen.choice.name}, not loaded: there was nothing to embed"]
    for line in filter(None, lines):
        say(line)
    if json:
        with writing_output():
            sys.stdout.buffer.write(summary_json(summary, seconds, used))
    return EXIT_STRICT if strict and (summary.unreadable or summary.damaged) else 0


def _rules(exclude: list[str] | None, **others: bool | None) -> Rules | None:
    """What was asked for; None if nothing was, so that roots keep their rules."""
    from clipsearch.images.finding import Rules

    if not exclude and all(value is None for value in others.values()):
        return None
    if others["by_name_only"] and others["include_backups"]:
        raise typer.BadParameter("--by-name-only looks into no file, nor into backups; leave --include-backups away")
    return Rules(tuple(exclude or ()), **{name: bool(value) for name, value in others.items()})
