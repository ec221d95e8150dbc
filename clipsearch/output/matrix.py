"""Comparison of images with texts: a matrix if it fits the terminal, else one record for each pair."""

from __future__ import annotations

from typing import BinaryIO

from clipsearch.output.paths import escaped, printable, shown
from clipsearch.output.rows import Row, Value, write_rows
from clipsearch.tasks.similarity import Comparison

COLUMNS = ("path", "text", "score", "rank")
"""Columns of a record; `probability` comes before `rank` if it is asked for."""
_NUMBERS = {"score": ".4f", "probability": ".4f"}
_GAP = 2
"""Cells between columns of a table."""


def write_matrix(
    found: Comparison, form: str, out: BinaryIO, *, screen: int | None = None, probabilities: bool = False
) -> None:
    """Write a comparison to `out` in a format of `rows.write_rows`.

    A table has a row for each image and a column for each text; a star marks the best. If that is wider than the
    terminal of `screen` columns, it has a row for each pair, like the other formats.
    """
    rows = _matrix(found, screen, probabilities=probabilities) if form == "table" else None
    if rows is None:
        rows = records(found, probabilities=probabilities)
    columns = [*COLUMNS[:-1], *(["probability"] if probabilities else []), COLUMNS[-1]]
    write_rows(rows, form, out, screen=screen, numbers=_NUMBERS, columns=columns)


def records(found: Comparison, *, probabilities: bool = False) -> list[Row]:
    """Return a row for each pair of image and text, in their order."""
    rows: list[Row] = []
    for i, image in enumerate(found.images):
        for j, text in enumerate(found.texts):
            row: dict[str, Value] = {"path": image, "text": text, "score": float(found.scores[i, j])}
            if probabilities:
                row["probability"] = float(found.probabilities[i, j])
            rows.append(row | {"rank": int(found.ranks[i, j])})
    return rows


def name_of(image: bytes | str) -> str:
    """Return the name of an image for the terminal: a path, or a name that is no file."""
    return printable(shown(image)) if isinstance(image, bytes) else escaped(image)


def _matrix(found: Comparison, screen: int | None, *, probabilities: bool) -> list[Row] | None:
    """Return the rows of the matrix; None if it does not fit, or two texts look the same."""
    from rich.cells import cell_len  # only tables need it

    values = found.probabilities if probabilities else found.scores
    names = [escaped(text) for text in found.texts]
    lines = [
        [f"{value:7.4f}{'*' if rank == 1 else ' '}" for value, rank in zip(*pair, strict=True)]
        for pair in zip(values.tolist(), found.ranks.tolist(), strict=True)
    ]
    images = [name_of(image) for image in found.images]
    if screen is not None:
        widths = [max(map(cell_len, column)) for column in (images, *zip(names, *lines, strict=True))]
        if sum(widths) + _GAP * (len(widths) - 1) > screen:
            return None
    if len(set(names)) < len(names):  # after control characters were escaped
        return None
    # No text is empty, so the column "" is free for the images.
    return [{"": image, **dict(zip(names, line, strict=True))} for image, line in zip(images, lines, strict=True)]
