"""The options that commands which search have in common, and what they open and say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from clipsearch.cli.inputs import paths_in, read_input
from clipsearch.cli.options import Format, FormatOptions, one_format, say
from clipsearch.errors import InputError
from clipsearch.index.filters import FilterArguments, Orientation
from clipsearch.models.encoder_options import Engine
from clipsearch.system.places import current_folder

if TYPE_CHECKING:
    from clipsearch.search.hit import Hit
    from clipsearch.search.index import Index, Searcher

EXIT_NOTHING_FOUND = 1


def _number_of_hits(given: str | int) -> int:
    """Parse a value of `-k`. The value "all" becomes a number larger than that of any images."""
    if given == "all":
        return sys.maxsize
    if not str(given).isdecimal() or int(given) < 1:
        raise typer.BadParameter(f"{given} is neither a number from 1 on nor all.")
    return int(given)


KOption = Annotated[
    int, typer.Option("-k", metavar="K", parser=_number_of_hits, help="The number of images to show, or all.")
]
MinScoreOption = Annotated[
    float | None,
    typer.Option("--min-score", metavar="X", help="Only images with at least this cosine.", show_default=False),
]
DistinctOption = Annotated[
    float | None,
    typer.Option(
        "--distinct",
        metavar="[X]",
        help="Show only one of several images with the same content, and the number of the others; with X, also only "
        "one of those whose cosine is X or more.",
        show_default=False,
    ),
]
WholeOption = Annotated[
    bool, typer.Option("--whole", help="Compare images as wholes only, without the regions that the index may have.")
]
ApproximateOption = Annotated[
    bool,
    typer.Option(
        "--approximate",
        help="Compare by short codes first, and only the best few thousand exactly: for an index that does not fit "
        "into memory. The codes are made by `clipsearch index --codes`.",
    ),
]
TunedOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="A model that `clipsearch tune` made from that of the index, to read words with.",
        show_default=False,
    ),
]
IndexesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--index",
        metavar="DIR",
        help="The index folder, instead of the nearest .clipsearch here or above. Several indexes of one model are "
        "searched as one: repeat the option, or give a pattern in quotes, 'shards/*'. [env: CLIPSEARCH_INDEX]",
        show_default=False,
    ),
]
GroupsPageOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with the groups, as a single file.", show_default=False),
]


@dataclass(frozen=True)
class FilterOptions:
    """The options for which images are searched."""

    under: Annotated[
        list[Path] | None,
        typer.Option(
            "--under",
            metavar="PATH",
            help="Only images in this folder. May be repeated. By default, below the folder of the index, only those "
            "in the current folder.",
            show_default=False,
        ),
    ] = None
    glob: Annotated[
        list[str] | None,
        typer.Option(
            "--glob",
            "-g",
            metavar="GLOB",
            help="Only paths that match, with the rules of .gitignore; !GLOB excludes. May be repeated; the last one "
            "that matches a path decides.",
            show_default=False,
        ),
    ] = None
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="DATE",
            help="Only images taken on this date or later (from EXIF or XMP, else the file's name, else its time): "
            "2024-05-31, 2024-05, 2024, or a time span before now: 30d, 12h, 2w, 6mo, 1y.",
            show_default=False,
        ),
    ] = None
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="DATE",
            help="Only images taken before this date; dates as for --after.",
            show_default=False,
        ),
    ] = None
    min_width: Annotated[
        int | None,
        typer.Option(
            "--min-width",
            metavar="PIXELS",
            min=1,
            show_default=False,
            help="Only images of at least this width in pixels, upright.",
        ),
    ] = None
    min_height: Annotated[
        int | None,
        typer.Option(
            "--min-height",
            metavar="PIXELS",
            min=1,
            show_default=False,
            help="Only images of at least this height in pixels, upright.",
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
            help="Only the paths in this file (- for standard input), one in each line, or separated by NUL as find "
            "-print0 writes them.",
            show_default=False,
        ),
    ] = None

    def arguments(self, here: Path | None) -> FilterArguments:
        """Return the filters for `Index.search`; `here` is the folder to search if `--under` names none."""
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
    """The options for the output of hits."""

    format: Annotated[
        Format, typer.Option("--format", help="auto: table on a terminal, tsv (without a header) in a pipe.")
    ] = Format.AUTO  # type: ignore[assignment]  # which has one more format
    print0: Annotated[
        bool, typer.Option("-0", "--print0", help="Print paths only, each followed by NUL, for xargs -0.")
    ] = False
    preview: Annotated[bool, typer.Option("--preview", help="Show the images themselves in the terminal.")] = False
    crop: Annotated[
        bool,
        typer.Option(
            "--crop",
            help="With --preview, --html or --copy-to: show or write only the region of an image that fits best, if it "
            "has one.",
        ),
    ] = False
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with the images, as a single file.", show_default=False
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
        """Return the format to print in, one of `output.rows`, or `paths`.

        Raises:
            InputError: the options name two formats.
        """
        asked = (self.format.value, "json" if self.json else "auto", "paths" if self.print0 else "auto")
        return one_format(*asked, spreadsheet_safe=self.spreadsheet_safe)

    def check(self) -> str:
        """Check the options before anything is searched, and return the format.

        Raises:
            InputError: the options contradict each other, or an output cannot be written.
        """
        form = self.form()
        if self.preview:
            from clipsearch.output.terminal.previews import check_terminal

            check_terminal(sys.stdout.buffer)
            if form != "table":
                raise InputError(f"--preview is for people, {form} for programs: choose one.")
        self._check_crop()
        check_page(self.html)
        return form

    def _check_crop(self) -> None:
        if self.crop and self.link_to:
            raise InputError(
                "--crop makes new pictures, and --link-to leads to those that are there: use --copy-to DIR."
            )
        if self.crop and not (self.preview or self.html or self.copy_to):
            raise InputError("--crop needs something to crop for: add --preview, --html FILE or --copy-to DIR.")


def check_page(html: Path | None) -> None:
    """Check a page before anything is searched.

    Raises:
        InputError: the page cannot be written.
    """
    if html:
        from clipsearch.output.atomic import check_replaceable
        from clipsearch.output.gallery import PAGE

        check_replaceable(html, PAGE)


def opened(
    folder: Path | None,
    filters: FilterOptions,
    *,
    model: str | None = None,
    engine: Engine = Engine.AUTO,
    verbose: bool = False,
) -> tuple[Index, FilterArguments]:
    """Open the index to search, and return it with the filters. The arguments are the values of options."""
    from clipsearch.api import open_at
    from clipsearch.cli.log import show_log
    from clipsearch.index_choice import index_to_search

    place, below = index_to_search(folder)
    arguments = filters.arguments(below)
    show_log(verbose=verbose)
    return open_at(place, model, engine=engine.value), arguments


def opened_all(
    folders: Sequence[Path] | None,
    filters: FilterOptions,
    *,
    model: str | None = None,
    engine: Engine = Engine.AUTO,
    verbose: bool = False,
) -> tuple[Searcher, FilterArguments]:
    """Open one or several indexes to search, and return them with the filters, as `opened` does for one."""
    from clipsearch.cli.log import show_log
    from clipsearch.index_choice import indexes_to_search
    from clipsearch.several_indexes import open_all

    places, below = indexes_to_search(folders or ())
    arguments = filters.arguments(below)
    show_log(verbose=verbose)
    return open_all(places, model, engine=engine.value), arguments


def say_why_nothing(index: Searcher, best: Sequence[Hit], filters: FilterArguments, *, other: str = "") -> None:
    """Report why there is no hit.

    `best` are hits that only the thresholds left out, and `other` is put before the word image.
    """
    if best:
        top = max(best, key=lambda hit: hit.score)
        confidence = "" if top.confidence is None else f" and confidence {top.confidence:.3f}"
        say(f"Nothing found: the closest image has score {top.score:.4f}{confidence}.")
    elif filters:
        say(f"Nothing found: {_why_nothing_passes(index, filters, other)}.")
    else:
        say(f"Nothing found: the index holds no {other}image.")


def _why_nothing_passes(index: Searcher, filters: FilterArguments, other: str) -> str:
    from clipsearch.index.selection import filters_of, unmatched

    under, glob = filters.get("under"), filters.get("glob")
    where = f"in {', '.join(map(str, under))}" if isinstance(under, list) else ""
    alone = {
        "under": f"the index holds no {other}image {where}",
        "files": "of the files that are listed, none is in the index",
        "glob": f"no {other}image in the index matches {' '.join(glob) if isinstance(glob, list) else glob}",
    }
    wrong = unmatched(index.stores, filters_of(filters, *index.stores))
    passes = f"the index holds no {other}image that passes the filters{f' ({where})' if where else ''}"
    return alone[wrong[0]] if wrong else passes
