"""`clipsearch duplicates`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import check_inputs
from clipsearch.cli.leftovers import put_back_leftovers
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, IndexOption, say, screen_width, writing_output
from clipsearch.cli.progress import ProgressBar
from clipsearch.cli.search_options import FilterOptions, GroupsPageOption, check_page, opened
from clipsearch.errors import InputError, NothingFoundError, OutputError

if TYPE_CHECKING:
    from clipsearch.output.rows import Row
    from clipsearch.tasks.duplicates import Deletion, Duplicate, Group

EXIT_NONE = 1
EXIT_NOT_DELETED = 2
COLUMNS = ("group", "mark", "score", "path", "width", "height", "bytes", "also")
_MANY = 20_000
"""Number of images from which on comparing takes some seconds, so that progress is shown."""


@dataclass(frozen=True)
class DeleteOptions:
    """The options for deleting duplicates."""

    delete: Annotated[
        bool,
        typer.Option(
            "--delete",
            help="Move the duplicates to the trash and keep the keepers; near duplicates only with --threshold. "
            "Without --yes nothing is deleted, and the exit code is 2.",
        ),
    ] = False
    permanently: Annotated[
        bool,
        typer.Option("--permanently", help="With --delete: remove files for good instead of moving them to the trash."),
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="Confirm --delete; without it nothing is deleted.")] = False

    def check(self, threshold: float | None, *, exact: bool) -> None:
        """Check the options before anything is compared.

        Raises:
            InputError: the options contradict each other, or deletion of near duplicates has no threshold.
        """
        for given, name in ((self.yes, "--yes"), (self.permanently, "--permanently")):
            if given and not self.delete:
                raise InputError(f"{name} is for --delete, and nothing is to be deleted.")
        if self.delete and not exact and threshold is None:
            raise InputError(
                "Near duplicates are deleted only above a threshold of your own: look at them without --delete, then "
                "add --threshold X; or delete only copies, with --exact."
            )


@grouped
def duplicates(
    *,
    exact: Annotated[bool, typer.Option("--exact", help="Only files with the same content.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="X",
            help="The cosine from which images are near duplicates, up to 1. By default 0.97.",
            show_default=False,
        ),
    ] = None,
    deletion: DeleteOptions,
    output: FormatOptions,
    print0: Annotated[
        bool,
        typer.Option(
            "-0", "--print0", help="Print only the paths of all but the keepers, each followed by NUL, for xargs -0."
        ),
    ] = False,
    html: GroupsPageOption = None,
    filters: FilterOptions,
    index: IndexOption = None,
) -> int:
    """Find groups of duplicate images, each with one to keep.

    The one to keep has the most pixels, or else is the largest file, or else the oldest. All others in its group are
    duplicates of it: a copy has the same content, a near duplicate a similar vector. Needs no model. Several names of
    one file, such as hard links, count once.

    Exits with 0 if there are duplicates, with 1 if there are none, and with 2 after an error or if a file could not be
    deleted.
    """
    form = _form(output, print0=print0)
    deletion.check(threshold, exact=exact)
    if exact and threshold is not None:
        raise InputError("--exact takes no threshold: leave --exact or --threshold out.")
    check_inputs(filters.files_from)
    check_page(html)
    opened_index, arguments = opened(index, filters)
    with opened_index:
        from clipsearch.tasks.duplicates import THRESHOLD, find_duplicates

        wanted = None if exact else THRESHOLD if threshold is None else threshold
        quiet = opened_index.store.count() < _MANY
        with ProgressBar(quiet=quiet, doing="Comparing") as progress:
            try:
                groups, images = find_duplicates(opened_index.store, threshold=wanted, progress=progress, **arguments)
            except NothingFoundError:
                _print([], form, deletion)
                raise
        roots = [root.path for root in opened_index.store.roots()]
    _print(groups, form, deletion)
    if not groups:
        say(f"No duplicates among {images} images.")
        return EXIT_NONE
    if html:
        _write_page(groups, html)
    return _delete(groups, roots, deletion) if deletion.delete else _report(groups, deletion)


def _form(output: FormatOptions, *, print0: bool) -> str:
    if not print0:
        return output.form()
    if output.json or output.format.value != "auto":
        raise InputError("One output format at a time: -0 prints paths only.")
    return "paths"


def _print(groups: Sequence[Group], form: str, deletion: DeleteOptions) -> None:
    """Write all groups to standard output, so that no file is deleted that could not be named before."""
    from clipsearch.output.paths import shown
    from clipsearch.output.rows import write_rows
    from clipsearch.tasks.duplicates import names_to_delete

    out = sys.stdout.buffer
    try:
        with writing_output():
            if form == "paths":
                every = (one for group in groups for one in group.duplicates)
                out.writelines(shown(path) + b"\0" for one in every for path in names_to_delete(one))
            else:
                write_rows(_rows(groups), form, out, screen=screen_width(), numbers={"score": ".4f"}, columns=COLUMNS)
    except BrokenPipeError:
        if deletion.delete:
            raise OutputError("Standard output was closed before all was named, so nothing was deleted.") from None
        raise


def _rows(groups: Sequence[Group]) -> list[Row]:
    rows: list[Row] = []
    for number, group in enumerate(groups, 1):
        marked = [("keep", 1.0, group.keeper, group.also)]
        marked += [(_mark(one), one.score, one.record, one.also) for one in group.duplicates]
        rows += [
            {
                "group": number,
                "mark": mark,
                "score": score,
                "path": record.path,
                "width": record.width,
                "height": record.height,
                "bytes": record.size,
                "also": (*also.hard, *also.symbolic),
            }
            for mark, score, record, also in marked
        ]
    return rows


def _mark(one: Duplicate) -> str:
    return "link" if one.is_link else "copy" if one.is_copy else "near"


def _write_page(groups: Sequence[Group], html: Path) -> None:
    from clipsearch.output.gallery import About, Section, write_gallery
    from clipsearch.search.hit import Hit

    sections = []
    for number, group in enumerate(groups, 1):
        scored = [(1.0, group.keeper), *((one.score, one.record) for one in group.duplicates)]
        hits = [Hit.of(one, rank, score) for rank, (score, one) in enumerate(scored, 1)]
        sections.append(Section(f"Group {number}", hits))
    write_gallery(html, sections, About("group", "groups", "cosine with the first of the group"))
    say(f"Wrote {html}.")


def _report(groups: Sequence[Group], options: DeleteOptions) -> int:
    from clipsearch.tasks.duplicates import reclaimable

    once = "" if options.permanently else ", once the trash is emptied"
    say(f"{_counted(groups)}. Deleting the duplicates would free {_size(reclaimable(groups))}{once}.")
    return 0


def _delete(groups: Sequence[Group], roots: Sequence[bytes], options: DeleteOptions) -> int:
    """Delete the duplicates, report it, and return the exit code."""
    if not options.yes:
        _report(groups, options)
        say("Nothing was deleted. To delete the duplicates, add --yes.")
        return EXIT_NOT_DELETED
    from clipsearch.tasks.duplicates import delete_duplicates

    paths = [record.path for group in groups for record in (group.keeper, *(one.record for one in group.duplicates))]
    put_back_leftovers(map(os.path.dirname, paths))
    tally = _Tally()
    try:
        for one in delete_duplicates(groups, roots, permanently=options.permanently):
            tally.add(one)
    finally:  # also after an interruption
        tally.report(permanently=options.permanently)
    return EXIT_NOT_DELETED if tally.left else 0


class _Tally:
    """Counts deleted files, and reports those that could not be deleted at once."""

    def __init__(self) -> None:
        self.left = 0
        """Number of files that could not be deleted."""
        self._deleted = self._freed = self._trashed = 0
        self._without_trash: dict[str, int] = {}
        """Number of further files for each reason why there is no trash; only the first one is reported by itself."""

    def add(self, one: Deletion) -> None:
        """Count one result of a deletion."""
        from clipsearch.output.paths import printable, shown
        from clipsearch.tasks.duplicates import GONE

        name = printable(shown(one.path))
        if one.problem == GONE:
            say(f"{name} is gone already.")
        elif one.problem:
            self.left += 1
            if one.no_trash and one.problem in self._without_trash:
                self._without_trash[one.problem] += 1
                return
            if one.no_trash:
                self._without_trash[one.problem] = 0
            say(f"{name} stays: {one.problem}.{' To delete it for good: --permanently' if one.no_trash else ''}")
        else:
            self._deleted += 1
            self._freed += one.freed
            self._trashed += one.trashed
        for link in one.dangling:
            say(f"The link {printable(shown(link))} leads nowhere now: its target was {name}.")

    def report(self, *, permanently: bool) -> None:
        """Report the numbers."""
        from clipsearch.system.counting import plural

        if more := sum(self._without_trash.values()):
            say(f"{more} more {'file stays' if more == 1 else 'files stay'} for the same reason.")
        if permanently:
            say(f"Deleted {plural(self._deleted, 'file')}, which freed {_size(self._freed)}.")
        else:
            say(f"Moved {plural(self._deleted, 'file')} to the trash. Emptying it frees {_size(self._trashed)}.")
        if self._deleted:
            say("To bring the index up to date: clipsearch index")


def _counted(groups: Sequence[Group]) -> str:
    from clipsearch.system.counting import plural

    number = sum(len(group.duplicates) for group in groups)
    return f"{plural(number, 'duplicate')} in {plural(len(groups), 'group')}"


def _size(number: int) -> str:
    """Write a number of bytes, and for large ones also megabytes."""
    return f"{number} bytes" + (f" ({number / 1e6:.1f} MB)" if number >= 100_000 else "")  # noqa: PLR2004
