"""Records of any command in every format: tables for people, TSV, CSV and JSON for programs."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from clipsearch.output.paths import escaped, json_fields, printable, shown

Value = str | int | float | bytes | tuple[bytes, ...] | None
"""Bytes are an absolute path, and a tuple has several."""
Row = Mapping[str, Value]
"""From the names of columns, which are the same in all rows and in the same order."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets compute, and so may run."""
_LONE = re.compile("[\ud800-\udfff]")
"""Halves of characters, and the bytes of names that are not UTF-8 as Python writes them."""
_DIGITS = 6
"""Decimals of numbers in JSON and CSV."""


def write_rows(
    rows: Sequence[Row],
    form: str,
    out: BinaryIO,
    *,
    screen: int | None = None,
    numbers: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Write `rows` to `out` as a table, tsv, csv, safe-csv, json or jsonl.

    tsv has no header; csv is RFC 4180, with one, and safe-csv the same with an apostrophe before texts and paths that a
    spreadsheet would run. JSON and CSV keep 6 decimals, `numbers` says how the others show a
    column, as in ".4f". What is None is an empty field, or null. Paths are relative to the current folder where they
    lie below it, with their own bytes, and in JSON also lossless where they are not UTF-8. Of several paths JSON makes
    an array of objects; the others put a comma and a space between them. `screen` is the width of the terminal that
    `out` is, in columns, or None: a terminal gets control characters as escapes. `columns` are the names for the header
    of csv where there may be no row.
    """
    formats = numbers or {}
    if form == "table":
        _table(rows, out, screen, formats)
    elif form == "tsv":
        for row in rows:
            fields = (_bytes(value, formats.get(name), screen=screen is not None) for name, value in row.items())
            out.write(b"\t".join(fields) + b"\n")
    elif form in ("csv", "safe-csv"):
        header = columns or (rows[0] if rows else ())
        _csv(rows, out, header, screen=screen is not None, safe=form == "safe-csv")
    elif form == "json":
        out.write(json_bytes([json_row(row) for row in rows], indent=2))
    elif form == "jsonl":
        out.writelines(json_bytes(json_row(row)) for row in rows)
    else:
        raise ValueError(f"unknown format {form!r}")


def json_row(row: Row) -> dict[str, object]:
    """A row for JSON."""
    fields: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            fields |= json_fields(shown(value), name)
        elif isinstance(value, tuple):
            fields[name] = [json_fields(shown(path)) for path in value]
        else:
            fields[name] = round(value, _DIGITS) if isinstance(value, float) else value
    return fields


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """JSON with a line end, in ASCII: any encoding can print it, and no terminal obeys what stands in it.

    What is no number is null, since JSON has no word for it; bytes in texts that are not UTF-8 are U+FFFD.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False).encode("ascii") + b"\n"


def _plain(value: object) -> object:
    """What all readers of JSON take."""
    if isinstance(value, str):
        return _LONE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def utf8(text: str) -> bytes:
    """`text` for standard output, whatever it holds: bytes of names as they are, other halves of characters as `?`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _table(rows: Sequence[Row], out: BinaryIO, screen: int | None, formats: Mapping[str, str]) -> None:
    from clipsearch.output.table import lines_of

    cells = [(name, value) for row in rows for name, value in row.items()]
    right = {name for name, value in cells if isinstance(value, int | float)}
    cuttable = {name for name, value in cells if isinstance(value, str | bytes | tuple)}
    texts = [{name: _text(value, formats.get(name)) for name, value in row.items()} for row in rows]
    lines = lines_of(texts, screen, right=right, cuttable=cuttable)
    out.writelines(utf8(f"{line}\n") for line in lines)


def _csv(rows: Sequence[Row], out: BinaryIO, columns: Iterable[str], *, screen: bool, safe: bool) -> None:
    import csv

    def cell(value: Value) -> str:
        field = _bytes(value, f".{_DIGITS}f", screen=screen, tabs=True).decode("utf-8", "surrogateescape")
        is_text = isinstance(value, str | bytes | tuple)  # numbers may be negative
        return f"'{field}" if safe and is_text and field.startswith(_FORMULA) else field

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header := list(columns):
        writer.writerow(map(cell, header))
    for row in rows:
        writer.writerow(map(cell, row.values()))
        out.write(text.getvalue().encode("utf-8", "surrogateescape"))
        text.seek(text.truncate(0))
    out.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _text(value: Value, form: str | None) -> str:
    """For a table."""
    if isinstance(value, bytes):
        return printable(shown(value))
    if isinstance(value, tuple):
        return ", ".join(printable(shown(path)) for path in value)
    if isinstance(value, float) and form:
        return format(value, form)
    return "" if value is None else escaped(str(value))


def _bytes(value: Value, form: str | None, *, screen: bool, tabs: bool = False) -> bytes:
    """For TSV and CSV; with `tabs`, texts may hold what parts the fields of TSV."""
    if isinstance(value, bytes):
        return printable(shown(value)).encode() if screen else shown(value)
    if isinstance(value, tuple):
        return b", ".join(_bytes(path, None, screen=screen) for path in value)
    if isinstance(value, str):
        return utf8(value if tabs and not screen else escaped(value))
    return utf8(_text(value, form))
