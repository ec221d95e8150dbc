"""`clipsearch query`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from clipsearch.cli.options import IndexOption, JsonOption, say

EXIT_NOTHING_FOUND = 1


def query(
    text: Annotated[str, typer.Argument(help="What the picture shows.", show_default=False)],
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many images to show.")] = 10,
    *,
    index: IndexOption = None,
    json: JsonOption = False,
    print0: Annotated[
        bool, typer.Option("-0", "--print0", help="Print paths only, each followed by NUL, for xargs -0.")
    ] = False,
) -> int:
    """Find the images that fit TEXT best, best first.

    On a terminal the result is a table; in a pipe it is tab-separated lines of rank, score (cosine) and path.
    Exits with 1 if the index holds no image.
    """
    if json and print0:
        raise typer.BadParameter("--json and -0 exclude each other")
    # Numpy's BLAS: one text is too little work for threads, and starting them, or waiting for one whose core is busy
    # with something else, takes longer than it saves. Ranking has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from clipsearch.api import open_index
    from clipsearch.output.hits import write_hits

    form = "json" if json else "paths0" if print0 else "table" if sys.stdout.isatty() else "tsv"
    with open_index(index, say=say) as opened:
        hits = opened.query(text, k)
    if hits or json:
        write_hits(hits, form, sys.stdout.buffer)
    if not hits:
        say("Nothing found: the index holds no image.")
    return 0 if hits else EXIT_NOTHING_FOUND
