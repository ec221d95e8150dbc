"""Writing of records in every format: table, TSV, CSV and JSON."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from clipsearch.output.paths import escaped, json_fields, printable, shown

Value = str | int | float | bytes | tuple[bytes, ...] | list[int] | None
"""Value of a field. Bytes are an absolute path, a tuple is several paths, and a list is an array of numbers."""
Row = Mapping[str, Value]
"""Column -> value. All rows have the same columns in the same order."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that spreadsheets take for a formula."""
_LONE = re.compile("[\ud800-\udfff]")
"""Lone surrogates, including those by which Python keeps bytes that are not UTF-8."""
_SURROGATE = "\\ud"
"""How the escape of a surrogate begins in JSON."""
_DIGITS = 6
"""Decimal places of numbers in JSON and CSV."""


def write_rows(
    rows: Sequence[Row],
    form: str,
    out: BinaryIO,
    *,
    screen: int | None = None,
    numbers: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    by: str | None = None,
) -> None:
    """Write rows in a format.

    None is an empty field, or null. Paths are relative to the current folder if they lie below it, byte for byte, and
    in JSON also lossless if they are not UTF-8. Several paths are an array of objects in JSON, and separated by a comma
    and a space in other formats. Numbers of an array are separated by a comma.

    Args:
        rows: The records.
        form: One of table, tsv (without a header), csv (RFC 4180, with a header), safe-csv (csv with an apostrophe
            before texts and paths that a spreadsheet would take for a formula), json (an array) and jsonl.
        out: Where to write.
        screen: Width of the terminal that `out` is, in columns, which gets control characters as escapes; None if it is
            no terminal.
        numbers: Number format of a column in a table or tsv, as in ".4f"; JSON and CSV have 6 decimal places.
        columns: Names for the header of csv if there may be no row.
        by: The column that rows are grouped by; in a table, its values stand above the rows of each group instead.
    """
    formats = numbers or {}
    if form == "table":
        _table(rows, out, screen, formats, by)
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
    """Return a row as the fields of a JSON object."""
    fields: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            fields |= json_fields(shown(value), name)
        elif isinstance(value, tuple):
            fields[name] = [json_fields(shown(path)) for path in value]
        else:
            fields[name] = rounded(value)
    return fields


def rounded(value: object) -> object:
    """Return a number with the decimal places that it has in JSON, and any other value as it is."""
    return round(value, _DIGITS) if isinstance(value, float) else value


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """Return JSON with a line end, in ASCII, so that it can be printed in any encoding and holds no control characters.

    NaN and infinities are null, and bytes in texts that are not UTF-8 are U+FFFD.
    """
    try:
        text = json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError):  # a mapping that is no dictionary, or NaN
        text = ""
    if not text or _SURROGATE in text:  # lone, or one of a pair
        text = json.dumps(_plain(value), indent=indent, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _plain(value: object) -> object:
    """Replace what JSON does not have: NaN, infinities and lone surrogates."""
    if isinstance(value, str):
        return _LONE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def utf8(text: str) -> bytes:
    """Encode `text`: bytes of file names that are not UTF-8 stay as they are, other lone surrogates become `?`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _table(rows: Sequence[Row], out: BinaryIO, screen: int | None, formats: Mapping[str, str], by: str | None) -> None:
    from clipsearch.output.table import lines_of, with_titles

    cells = [(name, value) for row in rows for name, value in row.items()]
    right = {name for name, value in cells if isinstance(value, int | float)}
    cuttable = {name for name, value in cells if isinstance(value, str | bytes | tuple)}
    texts = [{name: _text(value, formats.get(name)) for name, value in row.items()} for row in rows]
    titles = [row.pop(by) or "." for row in texts] if by else []
    lines = lines_of(texts, screen, right=right, cuttable=cuttable)
    if titles:
        lines = with_titles(lines, titles)
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
    """Return a value as text in a table."""
    if isinstance(value, bytes):
        return printable(shown(value))
    if isinstance(value, tuple):
        return ", ".join(printable(shown(path)) for path in value)
    if isinstance(value, float) and form:
        return format(value, form)
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else escaped(str(value))


def _bytes(value: Value, form: str | None, *, screen: bool, tabs: bool = False) -> bytes:
    """Return a value as a field of TSV or CSV; with `tabs`, texts keep tabs and line ends."""
    if isinstance(value, bytes):
        return printable(shown(value)).encode() if screen else shown(value)
    if isinstance(value, tuple):
        return b", ".join(_bytes(path, None, screen=screen) for path in value)
    if isinstance(value, str):
        return utf8(value if tabs and not screen else escaped(value))
    return utf8(_text(value, form))
