"""`clipsearch merge`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.options import JsonOption, say, writing_output
from clipsearch.errors import InputError
from clipsearch.system.counting import plural

if TYPE_CHECKING:
    from clipsearch.exchange.merging import Merged


def merge(
    indexes: Annotated[
        list[str],
        typer.Argument(
            metavar="INDEX...",
            help="The index folders, or patterns for them in quotes: 'shards/*'.",
            show_default=False,
        ),
    ],
    *,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            metavar="DIR",
            help="The new index folder, instead of .clipsearch in the current folder. [env: CLIPSEARCH_INDEX]",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            "--root",
            metavar="OLD=NEW",
            help="The new index knows the folder OLD as NEW: for indexes from machines where it is mounted elsewhere. "
            "May be repeated.",
            show_default=False,
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Merge the indexes of parts of a folder although some parts are missing.")
    ] = False,
    any_precision: Annotated[
        bool, typer.Option("--any-precision", help="Merge indexes that were computed in different precisions.")
    ] = False,
    codes: Annotated[
        bool, typer.Option("--codes", help="Make short codes of all vectors, for query --approximate.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
    json: JsonOption = False,
) -> None:
    """Make one index of several, such as those of the parts of a folder.

    The new index is the same as if it had been made in one run, and is refreshed by `clipsearch index`. It is made as a
    whole or not at all, and the others are not changed.
    """
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.exchange.merging import merge as merge_indexes
    from clipsearch.index_choice import index_folder, index_folders
    from clipsearch.output.rows import json_bytes

    out = index_folder(index, may_be_new=True)
    with ProgressBar(quiet=quiet) as bar:
        merged = merge_indexes(
            index_folders(indexes),
            out,
            moved=_pairs(root or ()),
            partial=partial,
            any_precision=any_precision,
            codes=codes,
            progress=bar,
        )
    if not quiet:
        say(_said(merged, out))
    if json:
        with writing_output():
            sys.stdout.buffer.write(json_bytes(merged._asdict() | {"missing": [*map(str, merged.missing)]}, indent=2))


def _said(merged: Merged, out: Path) -> str:
    from clipsearch.output.paths import printable, shown

    counts = ((merged.same, "in several"), (merged.unreadable, "unreadable"), (merged.dead_rows, "dead rows"))
    notes = ", ".join(f"{number} {word}" for number, word in counts if number)
    what = f"{merged.indexes} index{'' if merged.indexes == 1 else 'es'}"
    done = (
        f"Merged {what} into {printable(shown(os.fsencode(out)))}: "
        f"{plural(merged.images, 'image')}{f' ({notes})' if notes else ''} in {merged.seconds:.1f} s"
    )
    if not merged.missing:
        return done
    names = ", ".join(map(str, merged.missing))
    return f"{done}\nNot there: part {names}. A later `clipsearch index` embeds their pictures."


def _pairs(given: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Parse the values of `--root`."""
    from clipsearch.system.paths import absolute

    pairs = []
    for one in given:
        old, _, new = one.partition("=")
        if not old or not new:
            raise InputError(f"--root takes OLD=NEW, the old and the new path of a folder, not {one!r}.")
        pairs.append((absolute(old), absolute(new)))
    return pairs
