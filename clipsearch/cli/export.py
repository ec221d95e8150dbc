"""`clipsearch export`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from clipsearch.cli.embed import Dtype, DtypeOption, ForceOption, OutOption
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import IndexOption, say
from clipsearch.cli.search_options import EXIT_NOTHING_FOUND, FilterOptions, opened, say_why_nothing


class NamesFormat(StrEnum):
    """The values of `--format`."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


@grouped
def export(
    *,
    out: OutOption,
    format: Annotated[  # noqa: A002  (the option's name)
        NamesFormat,
        typer.Option("--format", help="The format of the file of names; parquet needs clipsearch[parquet]."),
    ] = NamesFormat.CSV,
    dtype: DtypeOption = Dtype.FLOAT32,
    force: ForceOption = False,
    filters: FilterOptions,
    index: IndexOption = None,
) -> int:
    """Write the vectors of an index to a .npy file, and the records of its images to another file beside it.

    OUT.npy gets one unit vector in each row, in the order of paths. OUT.csv (or .jsonl, .parquet) gets path, width,
    height, bytes, taken_at, date_source, mtime_ns and hash in the same order, and OUT.json the model. Vectors of
    regions are not exported. Exits with 0 if it is done, with 1 if no image passes the filters, and with 2 after an
    error.
    """
    from clipsearch.exchange.exporting import export as export_index

    opened_index, arguments = opened(index, filters)
    with opened_index:
        rows, dim = export_index(
            opened_index.store, out, names=format.value, dtype=dtype.value, replace=force, **arguments
        )
        if not rows:
            say_why_nothing(opened_index, [], arguments)
            return EXIT_NOTHING_FOUND
    say(f"Wrote {rows} x {dim} {dtype.value} to {out}, with names and model beside it.")
    return 0
