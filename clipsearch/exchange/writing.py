"""Writes vectors with names to files: .npy, and beside it CSV, JSON Lines or Parquet.

This module owns the format of the files, and ensures that the files of a set appear when all are complete, or not at
all. It knows nothing of indexes and models.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.exchange.parquet import arrow
from clipsearch.system.flushing import sync_file, sync_folder
from clipsearch.system.interrupts import shielded
from clipsearch.system.places import is_there
from clipsearch.unit import Floats

Value = str | int | bytes | None
"""The value of a field; bytes are an absolute path."""
Row = Mapping[str, Value]
"""The fields of one vector, by the names of columns."""

NAMES = ("csv", "jsonl", "parquet")
"""Formats of the file with names, which are also its suffix."""
DTYPES = ("float32", "float16")
"""Types of the numbers in vectors."""
_NAME_IN_FOLDER = "embeddings.npy"
"""Name of the file of vectors if the target is a folder."""


class NamesWriter(Protocol):
    """A writer of names in one format."""

    def write(self, rows: Iterable[Row]) -> None:
        """Write further rows."""

    def close(self) -> None:
        """Write the rest, and close the file."""


class VectorFiles:
    """A set of files while it is written: vectors, names in the same order, and a small JSON file about them.

    It is a context manager. The files appear with `finish`; without it, none is left behind.
    """

    def __init__(
        self,
        target: Path,
        columns: Mapping[str, type],
        *,
        names: str = "csv",
        dtype: str = "float32",
        replace: bool = False,
    ) -> None:
        """Start to write a set of files.

        Args:
            target: FILE.npy (names then go to FILE.csv and so on), or a folder, which is made if it does not exist.
            columns: the columns of the names, with the type of their values (bytes for paths).
            names: csv, jsonl or parquet.
            dtype: float32 or float16.
            replace: whether to replace existing files, once the new ones are complete.

        Raises:
            InputError: a file exists already or cannot be written.
        """
        if names not in NAMES or dtype not in DTYPES:
            raise ValueError(f"unknown format {names!r} or {dtype!r}")
        self.vectors = target if target.suffix == ".npy" else target / _NAME_IN_FOLDER
        self.names = self.vectors.with_suffix(f".{names}")
        self.about = self.vectors.with_suffix(".json")
        self._replace = replace
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shape: tuple[int, ...] = (0, 0)
        self._named = 0
        self._cleanup = ExitStack()
        self._check_free()
        with _writing(self.vectors), ExitStack() as undo:
            folder = self.vectors.parent
            if target.suffix != ".npy" and not is_there(folder):
                folder.mkdir()
                undo.callback(_remove_empty, folder)
            # In a temporary folder of the same file system, from which the files can be renamed.
            self._parts = Path(tempfile.mkdtemp(prefix=".clipsearch-", dir=folder))
            undo.callback(shutil.rmtree, self._parts, ignore_errors=True)
            self._matrix: BinaryIO = undo.enter_context((self._parts / self.vectors.name).open("wb"))
            self._writer = _names_writer(self._parts / self.names.name, names, columns)
            undo.callback(self._writer.close)
            self._cleanup = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of a full disk, which was reported already
            self._cleanup.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what was written so far: (N, D) vectors or (N, T, W) hidden states."""
        return self._shape

    def add(self, rows: Sequence[Row], vectors: Floats) -> None:
        """Write names and their (B, D) vectors."""
        self.add_names(rows)
        self.add_vectors(vectors)

    def add_names(self, rows: Sequence[Row]) -> None:
        """Write names; their vectors may come later."""
        with _writing(self.names):
            self._writer.write(rows)
        self._named += len(rows)

    def add_vectors(self, vectors: Floats) -> None:
        """Write (B, D) vectors, or (B, T, W) hidden states."""
        if self._shape[0] and vectors.shape[1:] != self._shape[1:]:
            raise ValueError(f"vectors of shape {vectors.shape[1:]} after vectors of shape {self._shape[1:]}")
        with _writing(self.vectors):
            if not self._shape[0]:
                self._write_header((0, *vectors.shape[1:]))
            self._matrix.write(np.ascontiguousarray(vectors, self._dtype).data)
        self._shape = (self._shape[0] + len(vectors), *vectors.shape[1:])

    def finish(self, about: Mapping[str, object]) -> None:
        """Complete the files and rename them. `about` goes into the JSON file, with rows, dim and dtype.

        Raises:
            InputError: a file cannot be written, or was made by another program meanwhile.
        """
        if not self._shape[0] or self._named != self._shape[0]:
            raise ValueError(f"{self._named} names for vectors of shape {self._shape}")
        facts = {**about, "rows": self._shape[0], "dim": self._shape[-1], "dtype": self._dtype.name}
        with _writing(self.vectors):
            self._matrix.seek(0)
            self._write_header(self._shape)
            self._matrix.close()
            self._writer.close()
            text = json.dumps(facts, indent=2)
            (self._parts / self.about.name).write_text(f"{text}\n", "utf-8")
        with _writing(self.vectors):
            for path in (self.names, self.about, self.vectors):
                sync_file(self._parts / path.name)  # so that a power cut cannot lose both the old and the new files
        self._check_free()
        with _writing(self.vectors), shielded():
            # The old vectors are deleted first and the new ones renamed last, so that they never lie beside other
            # names.
            self.vectors.unlink(missing_ok=True)
            for path in (self.names, self.about, self.vectors):
                os.replace(self._parts / path.name, path)
            sync_folder(self.vectors.parent)

    def _write_header(self, shape: tuple[int, ...]) -> None:
        """Write the header of the .npy file. NumPy pads it, so it can be rewritten with the final number of rows."""
        described = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._matrix, described)

    def _check_free(self) -> None:
        taken = [path for path in (self.vectors, self.names, self.about) if os.path.lexists(path)]
        if taken and not self._replace:
            raise InputError(f"{taken[0]} is there already.", hint="replace")
        for path in taken:
            if os.path.isdir(path):
                raise InputError(f"{path} is a folder. Choose another name.")


def save(
    target: Path,
    items: Iterable[tuple[Row, npt.NDArray[np.float32]]],
    columns: Mapping[str, type],
    about: Mapping[str, object],
    *,
    dtype: str = "float32",
    replace: bool = False,
) -> tuple[int, ...]:
    """Write vectors with names to FILE.npy, FILE.csv and FILE.json.

    Args:
        target: as for `VectorFiles`.
        items: the fields and the (D,) vector, or the (T, W) hidden states, of each row.
        columns: as for `VectorFiles`; a column `row` is added before them.
        about: as for `VectorFiles.finish`.
        dtype: as for `VectorFiles`.
        replace: as for `VectorFiles`.

    Returns:
        The shape of the array: (N, D) or (N, T, W).

    Raises:
        InputError: there is no vector, or a file exists already or cannot be written.
    """
    with VectorFiles(target, {"row": int, **columns}, dtype=dtype, replace=replace) as files:
        for number, (row, vector) in enumerate(items):
            files.add([{"row": number, **row}], vector[np.newaxis])
        if not files.shape[0]:
            raise InputError(f"There is nothing to write to {files.vectors}.")
        files.finish(about)
        return files.shape


def _names_writer(path: Path, form: str, columns: Mapping[str, type]) -> NamesWriter:
    kinds: dict[str, Callable[[Path, Mapping[str, type]], NamesWriter]] = {
        "csv": _CsvWriter,
        "jsonl": _JsonLinesWriter,
        "parquet": _ParquetWriter,
    }
    return kinds[form](path, columns)


class _CsvWriter:
    """Writes CSV (RFC 4180) with a header. Paths are written with their own bytes."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self._columns = list(columns)
        self._file = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow(self._columns)

    def write(self, rows: Iterable[Row]) -> None:
        self._csv.writerows([_text(row[name]) for name in self._columns] for row in rows)

    def close(self) -> None:
        self._file.close()


class _JsonLinesWriter:
    """Writes one JSON object in each line, in ASCII. A path that is not UTF-8 is also written in base64."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self._columns = list(columns)
        self._file = path.open("w", encoding="ascii", newline="\n")

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            fields: dict[str, object] = {}
            for name in self._columns:
                value = row[name]
                fields[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                if isinstance(value, bytes) and not _is_utf8(value):
                    fields[f"{name}_bytes"] = base64.b64encode(value).decode("ascii")
            self._file.write(f"{json.dumps(fields)}\n")

    def close(self) -> None:
        self._file.close()


class _ParquetWriter:
    """Writes Parquet. Each column of paths has another one beside it with their bytes, or null for a path in UTF-8."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self._arrow = arrow()
        kinds = {int: self._arrow.int64(), str: self._arrow.string(), bytes: self._arrow.string()}
        self._columns = columns
        fields = {name: kinds[kind] for name, kind in columns.items()}
        fields |= {f"{name}_bytes": self._arrow.binary() for name, kind in columns.items() if kind is bytes}
        self._schema = self._arrow.schema(list(fields.items()))
        self._parquet = self._arrow.parquet.ParquetWriter(path, self._schema)

    def write(self, rows: Iterable[Row]) -> None:
        columns: dict[str, list[object]] = {name: [] for name in self._schema.names}
        for row in rows:
            for name, kind in self._columns.items():
                value = row[name]
                columns[name].append(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
                if kind is bytes:
                    lossless = isinstance(value, bytes) and not _is_utf8(value)
                    columns[f"{name}_bytes"].append(value if lossless else None)
        self._parquet.write_table(self._arrow.table(columns, schema=self._schema))

    def close(self) -> None:
        self._parquet.close()


def _text(value: Value) -> Value:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty
        folder.rmdir()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error
