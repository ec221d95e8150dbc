"""Reads files of vectors and of their names, also those of other programs. Knows nothing of indexes and models."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipsearch.datasets.tables import IMAGE_COLUMNS, Column, decoded, lines_of, read_table
from clipsearch.errors import InputError
from clipsearch.exchange.parquet import arrow
from clipsearch.system.bounded import read_list_in
from clipsearch.unit import Floats

_log = logging.getLogger(__name__)
_PATH_COLUMNS = ("path", "image_path")
"""The column with paths in our files and in those of clip-retrieval. CSV and TSV may use other usual names, too."""
_COLUMNS = (
    Column("path", "paths", tuple(dict.fromkeys((*_PATH_COLUMNS, *IMAGE_COLUMNS)))),
    Column("row", "rows", ("row",), required=False),
)
_PART = re.compile(r"(img_emb|metadata)_(\d+)\.(npy|parquet)")


class Part(NamedTuple):
    """A file of vectors and the file of their names: a whole set, or one part of several."""

    vectors: Path
    names: Path


def clip_retrieval_parts(folder: Path) -> list[Part]:
    """Find the output of `clip-retrieval inference`: img_emb/img_emb_0.npy with metadata/metadata_0.parquet, and so on.

    Raises:
        InputError: there is no such file, or one file of a pair is missing.
    """
    found: dict[str, dict[int, Path]] = {"img_emb": {}, "metadata": {}}
    for place in (folder / "img_emb", folder / "metadata", folder):
        for path in sorted(place.glob("*_*.*")):
            if match := _PART.fullmatch(path.name):
                found[match[1]].setdefault(int(match[2]), path)
    vectors, names = found["img_emb"], found["metadata"]
    if not vectors:
        raise InputError(f"There is no img_emb/img_emb_*.npy in {folder}: it is no output of clip-retrieval inference.")
    if alone := sorted(vectors.keys() ^ names.keys()):
        there = vectors.get(alone[0]) or names[alone[0]]
        raise InputError(
            f"{there} has no partner: each img_emb_*.npy belongs with the metadata_*.parquet of its number."
        )
    return [Part(vectors[number], names[number]) for number in sorted(vectors)]


def open_vectors(path: Path) -> Floats:
    """Open the (N, D) vectors of a .npy file as a memory map.

    Raises:
        InputError: the file cannot be read, or does not hold rows of floating-point numbers.
    """
    try:
        with path.open("rb") as file:  # because NumPy would report folders and devices as broken files
            magic = file.read(6)
        if magic != b"\x93NUMPY":
            raise InputError(f"{path} is no .npy file. To make one: numpy.save({path.stem!r}, vectors)")
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is broken: {' '.join(str(error).split())}.") from error
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):  # noqa: PLR2004
        shape = " x ".join(map(str, vectors.shape))
        raise InputError(f"{path} holds {shape} {vectors.dtype}, not rows of floating-point numbers, (N, D).")
    return np.asarray(vectors)


def read_paths(path: Path, *, encoding: str | None = None) -> list[bytes]:
    """Read the paths in a file of names, unchanged and in order. Assumptions about the file are logged.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file with a column `path` (or `image_path`) and, if it has
            a column `row`, with numbers from 0 on in it; or a .txt file with one path in each line.
        encoding: that of a text file which is neither UTF-8 nor has a byte order mark.

    Raises:
        InputError: the file cannot be read, has no such column, a row without a path, or rows in another order.
    """
    rows_of_table = partial(_table_rows, encoding=encoding)
    readers: dict[str, Callable[[Path], Iterator[_Named]]] = {
        ".csv": rows_of_table,
        ".tsv": rows_of_table,
        ".jsonl": _json_rows,
        ".parquet": _parquet_rows,
        ".txt": partial(_text_rows, encoding=encoding),
    }
    kind = path.suffix.lower()
    if kind not in readers:
        raise InputError(f"{path} is no file of names that can be read: it should end with {', '.join(readers)}.")
    if encoding is not None and kind in (".jsonl", ".parquet"):
        raise InputError(f"Only tables of text have an encoding; {path} is always in UTF-8.", hint="no-encoding")
    found: list[bytes] = []
    try:
        for number, row in enumerate(readers[kind](path)):
            if not row.path or b"\0" in row.path:
                raise InputError(f"{path}: row {number} (from 0) has no path.")
            if row.number is not None and row.number != str(number):
                raise InputError(
                    f"{path}: row {number} (from 0) says that it is row {row.number}. Names have to be in the order of "
                    "the vectors: sort them by row."
                )
            found.append(row.path)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    return found


def read_about(vectors: Path) -> dict[str, Any]:
    """Read the JSON file that `VectorFiles` wrote beside vectors; empty if there is no such file."""
    try:
        about = json.loads(vectors.with_suffix(".json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) and "fingerprint" in about else {}


def model_named(vectors: Path) -> tuple[str, str] | None:
    """Return the model that the JSON file beside vectors names, and the reason to use it; None if there is none."""
    name = read_about(vectors).get("model")
    return (name, f"from {vectors.with_suffix('.json')}") if isinstance(name, str) else None


class _Named(NamedTuple):
    """A row of a file of names."""

    path: bytes | None
    number: str | None
    """The content of its column `row`."""


def _text_rows(path: Path, encoding: str | None) -> Iterator[_Named]:
    text = decoded(read_list_in(path), str(path), encoding, may_hold_nul=True)
    if assumed := text.assumed(str(path)):
        _log.warning(assumed)
    lines = text.text.split("\0") if "\0" in text.text else lines_of(text.text)
    for line in lines[
        : -1 if len(lines) > 1 and not lines[-1] else None
    ]:  # without the empty string after the last line end
        yield _Named(line.encode("utf-8", "surrogateescape"), None)


def _table_rows(path: Path, encoding: str | None) -> Iterator[_Named]:
    table = read_table(decoded(read_list_in(path), str(path), encoding), str(path), _COLUMNS)
    if table.assumed:
        _log.warning(table.assumed)
    for row in table.rows:
        name, number = row.values
        yield _Named(name.encode("utf-8", "surrogateescape"), number.strip() or None)


def _json_rows(path: Path) -> Iterator[_Named]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                columns = list(row.keys())
                name = columns[_path_column(path, columns)]
                lossless = row.get(f"{name}_bytes")
                value = row[name] if lossless is None else base64.b64decode(lossless, validate=True)
            except (ValueError, AttributeError, TypeError) as error:
                raise InputError(f"{path}, line {number}: this is no JSON object with a path.") from error
            yield _named(value, row.get("row"))


def _parquet_rows(path: Path) -> Iterator[_Named]:
    pyarrow = arrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            name = header[_path_column(path, header)]
            wanted = [column for column in (name, f"{name}_bytes", "row") if column in header]
            for batch in file.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    yield _named(row.get(f"{name}_bytes") or row[name], row.get("row"))
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is broken: {' '.join(str(error).split())}") from error


def _named(value: object, number: object) -> _Named:
    path = os.fsencode(value) if isinstance(value, str) else value if isinstance(value, bytes) else None
    return _Named(path, None if number is None else str(number))


def _path_column(path: Path, header: Sequence[str]) -> int:
    for name in _PATH_COLUMNS:
        if name in header:
            return header.index(name)
    raise InputError(
        f"{path} has no column {' or '.join(_PATH_COLUMNS)}; it has: {', '.join(header) or 'none'}. Rename the one "
        "with the paths, or give them one a line in a .txt file."
    )
