"""Parsing of tables (CSV, TSV and similar) with unknown encoding and separator into rows of the wanted columns.

The separator is the one with which the header has the wanted columns. Reads no file.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from clipsearch.errors import InputError
from clipsearch.system import unicode
from clipsearch.system.addresses import as_address
from clipsearch.system.paths import absolute

IMAGE_COLUMNS = ("image", "file", "path", "filename", "filepath", "image_path", "image_name")
"""Names of a column with image paths, in any case; if a table has several, the first of these counts."""
_OTHER_ENCODING = "encoding"
"""Hint of errors that a wrong encoding may have caused."""

_UTF_8 = "UTF-8"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", _UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # it begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
"""(byte order mark, Python's name of its encoding, name for users)."""
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separator -> plural word for users; the most usual comes first."""
_SAMPLE = 100
"""Number of rows that are compared if the header does not decide."""
_LINE_END = re.compile(r"\r\n|\n|\r")


class Text(NamedTuple):
    """The content of a file, decoded."""

    text: str
    encoding: str
    """Name of its encoding for users."""

    def assumed(self, name: str) -> str | None:
        """Return a sentence about the encoding of the file `name`; None if it is UTF-8."""
        return None if self.encoding == _UTF_8 else f"{name}: read as {self.encoding}."


class Column(NamedTuple):
    """A wanted column."""

    what: str
    """Word for the content of a field in errors: image, caption, label."""
    plural: str
    """Word for the content of the column in messages: paths, texts, labels."""
    names: tuple[str, ...]
    """Possible names in the header, in any case and with spaces around; the first that is there counts."""
    required: bool = True
    """Whether a table without it is an error."""


class Row(NamedTuple):
    """The wanted fields of one row."""

    values: tuple[str, ...]
    """Value of each wanted column, unchanged; empty for an optional column that the table does not have."""
    where: str
    """File and line, for errors."""


class Table(NamedTuple):
    """The rows of a table, and how they were read."""

    rows: Iterator[Row]
    """Rows that are not blank. Raises InputError for a row that cannot be read or has fewer fields than the header."""
    assumed: str | None
    """Sentence about encoding, separator and columns; None for UTF-8 with commas."""


class _Layout(NamedTuple):
    """Separator and columns of a table."""

    separator: str
    spaced: bool
    """Whether a space follows each separator."""
    header: list[str]
    """Names of its columns, without spaces around."""
    places: list[int | None]
    """Position of each wanted column; None for one that is not there."""


def decoded(content: bytes, name: str, encoding: str | None = None, *, may_hold_nul: bool = False) -> Text:
    """Decode the content of the file `name`: by its byte order mark, else by `encoding`, else as UTF-8.

    In UTF-8, invalid bytes are kept as surrogates (`surrogateescape`), since file names may contain any; see
    `check_utf8`. NUL is refused unless it `may_hold_nul`.

    Raises:
        InputError: there is no such encoding, or the content is not in it or no text.
    """
    if encoding is not None:
        check_encoding(encoding)
    for mark, known, called in _MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], None if called == _UTF_8 else known
            break
    else:
        called = encoding or _UTF_8
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        if not may_hold_nul:
            _check_nul(content, name)
        return Text(content.decode("utf-8", "surrogateescape"), _UTF_8)
    return Text(_strictly(content, encoding, called, name).removeprefix(_MARK), called)


def check_encoding(encoding: str) -> None:
    """Check that Python knows an encoding.

    Raises:
        InputError: it does not.
    """
    try:
        "a".encode(encoding)
    except (LookupError, ValueError) as error:  # a codec that encodes no text is a LookupError, too
        raise InputError(
            f"There is no encoding {encoding!r}. Usual ones are utf-8, utf-16, cp949, euc-kr, shift_jis, gb18030, "
            "big5, latin-1 and cp1252."
        ) from error


def check_utf8(text: str, what: str) -> None:
    """Check that `text`, which errors call `what`, was UTF-8.

    Raises:
        InputError: it was not.
    """
    unicode.check_utf8(text, what, hint=_OTHER_ENCODING)


def encoding_hint(paths: Iterable[bytes]) -> tuple[str, ...]:
    """Return the hints of an error about missing files: if a name is not UTF-8, the table's encoding may be wrong."""
    try:
        for path in paths:
            path.decode()
    except UnicodeDecodeError:
        return (_OTHER_ENCODING,)
    return ()


def path_in(folder: Path, name: str, encoding: str | None = None) -> bytes:
    """Return the absolute path of the file that a table in `folder` calls `name`.

    If no file has that name, one whose name is in the table's `encoding`, as in old archives, is taken, and then one
    whose name lacks the spaces around it. A name may be an address, too, and so may `folder`.

    Raises:
        InputError: as for `addresses.as_address`.
        ValueError: no file can have this name.
    """
    if ":/" in name and (address := as_address(name.strip())) is not None:
        return address
    path = absolute(folder / os.fsdecode(name.encode("utf-8", "surrogateescape")))
    is_plain = name.isascii() and name == name.strip()
    if is_plain or os.path.lexists(path):
        return path
    if encoding is not None and not name.isascii():
        with contextlib.suppress(UnicodeError):
            old = absolute(folder / os.fsdecode(name.encode(encoding)))
            if os.path.lexists(old):
                return old
    return path if name == name.strip() else path_in(folder, name.strip(), encoding)


def lines_of(text: str) -> list[str]:
    """Split a text into lines; a carriage return alone ends a line only if there is no other line end."""
    text = text.replace("\r\n", "\n")
    return text.split("\n" if "\n" in text else "\r")


def read_table(text: Text, name: str, columns: Sequence[Column]) -> Table:
    """Read the wanted `columns` of the table in a file called `name`. Its first row names its columns.

    Raises:
        InputError: a required column is missing.
    """
    layout = _layout(text.text, name, columns)
    return Table(_rows(text.text, name, layout), _assumed(text, name, columns, layout))


# -- decoding ------------------------------------------------------------------------------------------------------


def _check_nul(content: bytes, name: str) -> None:
    at = content.find(b"\0")
    if at >= 0:
        line = len(_LINE_END.findall(content[:at].decode("latin-1"))) + 1
        raise InputError(f"{name} is no text in UTF-8: there is a NUL byte in line {line}.", hint="utf-16")


def _strictly(content: bytes, encoding: str, called: str, name: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeError as error:
        at = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = len(_LINE_END.findall(content[:at].decode(encoding, "ignore"))) + 1
        raise InputError(
            f"{name}, line {line}: byte 0x{content[at : at + 1].hex()} does not fit {called}.",
            hint="wrong-encoding",
        ) from error


# -- layout --------------------------------------------------------------------------------------------------------


def _layout(text: str, name: str, columns: Sequence[Column]) -> _Layout:
    """Choose the separator with which the header has the wanted columns, and among several by the first rows."""
    tried = [_tried(text, name, separator, columns) for separator in _SEPARATORS]
    layouts = [layout for layout in tried if isinstance(layout, _Layout)]
    if not layouts:
        raise next(error for error in tried if isinstance(error, InputError))
    fitting = [layout for layout in layouts if not _lacking(layout, columns)]
    if not fitting:
        closest = max(layouts, key=lambda layout: len(layout.header))
        raise _no_column(closest, name, columns)
    return min(fitting, key=lambda layout: not _is_even(text, name, layout)) if len(fitting) > 1 else fitting[0]


def _tried(text: str, name: str, separator: str, columns: Sequence[Column]) -> _Layout | InputError:
    """Return the layout with a separator, or the error of reading the header with it."""
    for spaced in (False, True):
        try:
            _, header = next(_records(text, name, separator, spaced=spaced), ("", []))
        except InputError as error:
            return error
        if len(header) < 2 or not all(field.startswith(" ") for field in header[1:]):  # noqa: PLR2004
            break
    names = [field.strip() for field in header]
    lowered = [field.lower() for field in names]
    places = [next((lowered.index(one) for one in column.names if one in lowered), None) for column in columns]
    return _Layout(separator, spaced, names, places)


def _lacking(layout: _Layout, columns: Sequence[Column]) -> list[Column]:
    pairs = zip(columns, layout.places, strict=True)
    return [column for column, place in pairs if column.required and place is None]


def _is_even(text: str, name: str, layout: _Layout) -> bool:
    """Whether the first rows have the same number of fields as the header."""
    records = islice(_records(text, name, layout.separator, spaced=layout.spaced), _SAMPLE)
    try:
        return all(len(record) == len(layout.header) for _, record in records)
    except InputError:
        return False


def _no_column(layout: _Layout, name: str, columns: Sequence[Column]) -> InputError:
    lacking = _lacking(layout, columns)
    what = " and none for the ".join(column.what for column in lacking)
    found = ", ".join(repr(field) for field in layout.header) or "nothing"
    wanted = ", and one ".join(_alternatives(column.names) for column in lacking)
    text = f"{name} has no column for the {what}: its first line has {found}. Name one of them {wanted}."
    is_odd = any(unicode.NO_UTF_8.search(field) or "\0" in field for field in layout.header)
    return InputError(text, hint=_OTHER_ENCODING if is_odd else ())


def _alternatives(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _assumed(text: Text, name: str, columns: Sequence[Column], layout: _Layout) -> str | None:
    if text.encoding == _UTF_8 and layout.separator == ",":
        return None
    named = [
        f"{column.plural} in {layout.header[place]!r}"
        for column, place in zip(columns, layout.places, strict=True)
        if place is not None
    ]
    return f"{name}: read as {text.encoding}, separated by {_SEPARATORS[layout.separator]}, {', '.join(named)}."


# -- rows ----------------------------------------------------------------------------------------------------------


def _rows(text: str, name: str, layout: _Layout) -> Iterator[Row]:
    records = _records(text, name, layout.separator, spaced=layout.spaced)
    for where, record in islice(records, 1, None):  # without the header
        wanted = len(layout.header)
        if len(record) < wanted or any(field.strip() for field in record[wanted:]):
            separator = _SEPARATORS[layout.separator].removesuffix("s")
            hint = f" A field with a {separator} in it needs quotes." if len(record) > wanted else ""
            raise InputError(f"{where}: the header has {wanted} fields, this line {len(record)}.{hint}")
        yield Row(tuple("" if place is None else record[place] for place in layout.places), where)


def _records(text: str, name: str, separator: str, *, spaced: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield position (file and line) and fields of each row that is not blank, including the header.

    Raises:
        InputError: quotes are invalid, or a field is too long.
    """
    # newline="": line ends within fields stay unchanged.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=spaced, strict=True)
    is_first = True
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{where}: {error}. A field with quotes in it is put between quotes, and those in it are written twice."
            ) from error
        if record is None:
            return
        if any(field.strip() for field in record):
            if not (is_first and _is_hint(record)):
                yield where, record
            is_first = False


def _is_hint(record: list[str]) -> bool:
    """Whether a row is Excel's line `sep=;` before the header, with the separator that is being tried."""
    return len(record) == 2 and record[0].strip().lower() == "sep=" and not record[1].strip()  # noqa: PLR2004
