"""The output of hits: to standard output, to files, and in a viewer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clipsearch.cli.options import say, screen_width, writing_output
from clipsearch.cli.ordering import OrderOptions
from clipsearch.cli.search_options import EXIT_NOTHING_FOUND, OutputOptions
from clipsearch.errors import InputError
from clipsearch.system.counting import plural

if TYPE_CHECKING:
    from clipsearch.output.hits import Found
    from clipsearch.search.hit import Hit


def present(
    found: Sequence[Found], options: OutputOptions, form: str, *, many: bool = False, order: OrderOptions
) -> int:
    """Print the hits of queries, write them to files as `options` say, and return the exit code.

    `form` is the format that `options.check` returned. With `many`, each hit is shown with its query. `order` is
    the order that they have.
    """
    hits = [hit for result in found for hit in result.hits]
    # 1. Write to standard output.
    with writing_output():
        _write(found, options, form, many=many, order=order)
    # 2. Write files.
    for folder, link in ((options.copy_to, False), (options.link_to, True)):
        if folder and hits:
            from clipsearch.output.copies import Region, place

            images = [Region(hit.path_bytes, hit.box) if options.crop and hit.box else hit.path_bytes for hit in hits]
            say(place(images, folder, link=link))
    if options.html:
        from clipsearch.output.gallery import of_found, write_gallery

        write_gallery(options.html, *of_found(found, order.by), crop=options.crop)
        say(f"Wrote {options.html}.")
    if options.crop and hits:
        _say_what_is_whole(hits)
    # 3. Open a viewer.
    if options.open and (options.html or hits):
        _open(options.html or hits[0].path)
    return 0 if hits else EXIT_NOTHING_FOUND


def _write(found: Sequence[Found], options: OutputOptions, form: str, *, many: bool, order: OrderOptions) -> None:
    if options.preview:
        from clipsearch.output.hits import parts
        from clipsearch.output.terminal.previews import show_previews

        show_previews(parts(found, order.by, many=many), sys.stdout.buffer, crop=options.crop)
    else:
        from clipsearch.output.hits import write_hits

        out, screen = sys.stdout.buffer, screen_width()
        write_hits(found, form, out, many=many, by=order.by, dated=order.by_date, nul=options.print0, screen=screen)


def _say_what_is_whole(hits: Sequence[Hit]) -> None:
    """Report how many hits have no region to which they could be cropped."""
    whole = sum(hit.box is None for hit in hits)
    if not any(hit.among_regions for hit in hits):
        say("Nothing was cropped: no region took part in the search. To index regions: clipsearch index --regions")
    elif whole:
        say(f"{whole} of {plural(len(hits), 'image')} not cropped: no region fits better than the whole.")


def _open(path: Path) -> None:
    from clipsearch.system.members import elsewhere
    from clipsearch.system.paths import absolute

    if where := elsewhere(absolute(path)):
        raise InputError(f"{path} lies {where}, and no viewer opens it there.", hint="open-page")
    if typer.launch(os.path.abspath(path)):
        raise InputError(f"There is no viewer to open {path} with: xdg-open is not installed, or failed.")
