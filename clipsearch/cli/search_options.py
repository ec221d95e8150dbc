"""What commands that search share: their options, and what becomes of hits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from clipsearch.cli.inputs import paths_in, read_input
from clipsearch.cli.options import Engine, Format, FormatOptions, one_format, say, screen_width, writing_output
from clipsearch.errors import InputError
from clipsearch.index.filters import FilterArguments, Orientation
from clipsearch.system.places import current_folder

if TYPE_CHECKING:
    from clipsearch.output.hits import Found
    from clipsearch.search.hit import Hit
    from clipsearch.search.index import Index

EXIT_NOTHING_FOUND = 1


def _number_of_hits(given: str | int) -> int:
    """What `-k` takes; all are more than there can be."""
    if given == "all":
        return sys.maxsize
    if not str(given).isdecimal() or int(given) < 1:
        raise typer.BadParameter(f"{given} is neither a number from 1 on nor all.")
    return int(given)


KOption = Annotated[
    int, typer.Option("-k", metavar="K", parser=_number_of_hits, help="How many images to show; all for every one.")
]
MinScoreOption = Annotated[
    float | None,
    typer.Option("--min-score", metavar="X", help="Only images with this cosine or more.", show_default=False),
]
DistinctOption = Annotated[
    float | None,
    typer.Option(
        "--distinct",
        metavar="[X]",
        help="Show one of the images with the same content, and tell of how many others; with X, also of those that "
        "have this cosine with it or more.",
        show_default=False,
    ),
]
GroupsPageOption = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write a page with the groups, which needs nothing else.", show_default=False
    ),
]


@dataclass(frozen=True)
class FilterOptions:
    """Which images are searched."""

    under: Annotated[
        list[Path] | None,
        typer.Option(
            "--under",
            metavar="PATH",
            help="Only images in this folder. May be repeated. Below the folder of the index, the current folder is "
            "taken by itself.",
            show_default=False,
        ),
    ] = None
    glob: Annotated[
        list[str] | None,
        typer.Option(
            "--glob",
            "-g",
            metavar="GLOB",
            help="Only paths that match, with the rules of .gitignore; !GLOB leaves out. May be repeated; the last one "
            "that matches a path decides.",
            show_default=False,
        ),
    ] = None
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="DATE",
            help="Only images taken then or later (EXIF, XMP, else the file's name, else its time): 2024-05-31, "
            "2024-05, 2024, or a span back from now: 30d, 12h, 2w, 6mo, 1y.",
            show_default=False,
        ),
    ] = None
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="DATE", help="Only images taken before then; dates as for --after.", show_default=False
        ),
    ] = None
    min_width: Annotated[
        int | None,
        typer.Option(
            "--min-width",
            metavar="PIXELS",
            min=1,
            show_default=False,
            help="Only images of this width in pixels or more, upright.",
        ),
    ] = None
    min_height: Annotated[
        int | None,
        typer.Option(
            "--min-height",
            metavar="PIXELS",
            min=1,
            show_default=False,
            help="Only images of this height in pixels or more, upright.",
        ),
    ] = None
    orientation: Annotated[
        Orientation | None,
        typer.Option("--orientation", help="Only images of this shape, upright.", show_default=False),
    ] = None
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="FILE",
            help="Only the paths in this file (- for standard input), one a line, or separated by NUL, as find -print0 "
            "writes them.",
            show_default=False,
        ),
    ] = None

    def arguments(self, here: Path | None) -> FilterArguments:
        """For `Index.search`; `here` is the folder that counts where `--under` names none."""
        given = {name: value for name, value in vars(self).items() if value not in (None, [])}
        if "glob" in given:
            given["seen_from"] = current_folder()
        if (listed := given.pop("files_from", None)) is not None:
            given["files"] = paths_in(read_input(listed))
        elif here:
            given.setdefault("under", [here])
        return cast("FilterArguments", given)


@dataclass(frozen=True)
class OutputOptions(FormatOptions):
    """What becomes of hits."""

    format: Annotated[
        Format, typer.Option("--format", help="auto: table on a terminal, tsv (without a header) in a pipe.")
    ] = Format.AUTO  # type: ignore[assignment]  # of one format more
    print0: Annotated[
        bool, typer.Option("-0", "--print0", help="Print paths only, each followed by NUL, for xargs -0.")
    ] = False
    preview: Annotated[bool, typer.Option("--preview", help="Show the images themselves in the terminal.")] = False
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with the images, which needs nothing else.", show_default=False
        ),
    ] = None
    open: Annotated[
        bool, typer.Option("--open", help="Open the page, or else the first image, with the desktop's viewer.")
    ] = False
    copy_to: Annotated[
        Path | None,
        typer.Option(
            "--copy-to",
            metavar="DIR",
            help="Copy the images into this folder; nothing in it is overwritten.",
            show_default=False,
        ),
    ] = None
    link_to: Annotated[
        Path | None,
        typer.Option(
            "--link-to",
            metavar="DIR",
            help="Make symbolic links to the images in this folder; nothing in it is overwritten.",
            show_default=False,
        ),
    ] = None

    def form(self) -> str:
        """The format that is meant: one that `output.rows` knows, or `paths`.

        Raises:
            InputError: two are.
        """
        asked = (self.format.value, "json" if self.json else "auto", "paths" if self.print0 else "auto")
        return one_format(*asked, spreadsheet_safe=self.spreadsheet_safe)

    def check(self) -> str:
        """Complain before anything is searched; the format that is meant.

        Raises:
            InputError: what is asked for cannot be done.
        """
        form = self.form()
        if self.preview:
            from clipsearch.output.terminal.previews import check_terminal

            check_terminal(sys.stdout.buffer)
            if form != "table":
                raise InputError(f"--preview is for eyes, {form} for programs: choose one.")
        check_page(self.html)
        return form


def check_page(html: Path | None) -> None:
    """Complain before anything is searched.

    Raises:
        InputError: the page that is asked for cannot be written.
    """
    if html:
        from clipsearch.output.atomic import check_replaceable
        from clipsearch.output.gallery import PAGE

        check_replaceable(html, PAGE)


def opened(
    folder: Path | None, filters: FilterOptions, *, engine: Engine = Engine.AUTO, verbose: bool = False
) -> tuple[Index, FilterArguments]:
    """The index to search, and the filters; `folder` is what `--index` says, and so are the others."""
    from clipsearch.api import index_to_search, open_at
    from clipsearch.cli.log import show_log

    place, below = index_to_search(folder)
    arguments = filters.arguments(below)
    show_log(verbose=verbose)
    return open_at(place, engine=engine.value), arguments


def present(found: Sequence[Found], options: OutputOptions, form: str, *, many: bool = False) -> int:
    """Do what `options` say with the hits of queries; the exit code.

    `form` is what `options.check` gave. With `many`, each hit is shown with its query.
    """
    hits = [hit for result in found for hit in result.hits]
    # 1. Standard output.
    with writing_output():
        _write(found, options, form, many=many)
    # 2. Files.
    for folder, link in ((options.copy_to, False), (options.link_to, True)):
        if folder and hits:
            from clipsearch.output.copies import place

            say(place([hit.path_bytes for hit in hits], folder, link=link))
    if options.html:
        from clipsearch.output.gallery import Section, write_gallery

        write_gallery(options.html, [Section(result.query, result.hits) for result in found])
        say(f"Wrote {options.html}.")
    # 3. The desktop.
    if options.open and (options.html or hits):
        _open(options.html or hits[0].path)
    return 0 if hits else EXIT_NOTHING_FOUND


def _write(found: Sequence[Found], options: OutputOptions, form: str, *, many: bool) -> None:
    if options.preview:
        from clipsearch.output.terminal.previews import show_previews

        show_previews([(result.query if many else None, result.hits) for result in found], sys.stdout.buffer)
    else:
        from clipsearch.output.hits import write_hits

        write_hits(found, form, sys.stdout.buffer, many=many, nul=options.print0, screen=screen_width())


def say_why_nothing(index: Index, best: Sequence[Hit], filters: FilterArguments, *, other: str = "") -> None:
    """Say why there is no hit; `best` are those that only the cut-offs kept out, `other` what images have to be."""
    if best:
        top = max(best, key=lambda hit: hit.score)
        confidence = "" if top.confidence is None else f" and confidence {top.confidence:.3f}"
        say(f"Nothing found: the closest image has score {top.score:.4f}{confidence}.")
    elif filters:
        say(f"Nothing found: {_why_nothing_passes(index, filters, other)}.")
    else:
        say(f"Nothing found: the index holds no {other}image.")


def _why_nothing_passes(index: Index, filters: FilterArguments, other: str) -> str:
    from clipsearch.index.selection import filters_of, unmatched

    under, glob = filters.get("under"), filters.get("glob")
    where = f"in {', '.join(map(str, under))}" if isinstance(under, list) else ""
    alone = {
        "under": f"the index holds no {other}image {where}",
        "files": "of the files that are listed, none is in the index",
        "glob": f"no {other}image in the index matches {' '.join(glob) if isinstance(glob, list) else glob}",
    }
    wrong = unmatched(index.store, filters_of(filters, index.store))
    passes = f"the index holds no {other}image that passes the filters{f' ({where})' if where else ''}"
    return alone[wrong[0]] if wrong else passes


def _open(path: Path) -> None:
    if typer.launch(os.path.abspath(path)):
        raise InputError(f"There is no viewer to open {path} with: xdg-open is not installed, or failed.")
