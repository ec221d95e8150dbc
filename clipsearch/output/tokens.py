"""Output of tokenised texts: a table with a row for each token, or a record for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from clipsearch.output.paths import escaped
from clipsearch.output.rows import Row, json_bytes, utf8, write_rows
from clipsearch.tasks.explain_tokens import Tokenized

COLUMNS = ("count", "context", "cut_at", "ids", "pieces", "lost", "text")
"""Columns of all formats but the table. `ids` and `pieces` are arrays in JSON, and separated by spaces in others."""


def write_tokens(found: Sequence[Tokenized], form: str, out: BinaryIO, *, screen: int | None = None) -> None:
    """Write texts to `out` in a format of `rows.write_rows`; `screen` is as for `rows.write_rows`."""
    if form == "table":
        for number, one in enumerate(found):
            out.write(b"\n" if number else b"")
            _write_table(one, out, screen)
    elif form == "json":
        out.write(json_bytes([_fields(one) for one in found], indent=2))
    elif form == "jsonl":
        out.writelines(json_bytes(_fields(one)) for one in found)
    else:
        # CLIP's pieces have no space in them.
        rows = [
            {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in fields.items()}
            for fields in map(_fields, found)
        ]
        write_rows(rows, form, out, screen=screen, columns=COLUMNS)


def _fields(one: Tokenized) -> dict[str, int | str | list[int] | list[str] | None]:
    return {
        "count": one.count,
        "context": one.context,
        "cut_at": one.cut_at,
        "ids": one.ids,
        "pieces": one.pieces,
        "lost": one.lost,
        "text": one.text,
    }


def _write_table(one: Tokenized, out: BinaryIO, screen: int | None) -> None:
    out.write(utf8(f"{escaped(one.text)}\n"))
    pairs = enumerate(zip(one.pieces, one.ids, strict=True), 1)
    rows: list[Row] = [{"token": number, "id": token, "piece": piece} for number, (piece, token) in pairs]
    write_rows(rows, "table", out, screen=screen)
    out.write(utf8(f"{one.count} of {one.context} tokens, start and end included\n"))
    if one.cut_at is not None:
        out.write(utf8(f"cut at character {one.cut_at}; not read: {escaped(one.lost.strip())}\n"))
