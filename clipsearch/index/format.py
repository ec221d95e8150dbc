"""The format of an index: names of its files, database schema, records, and errors about them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from clipsearch.errors import (
    ClipsearchError,
    IndexDamagedError,
    IndexLockedError,
    IndexMissingError,
    IndexWriteError,
    ModelMismatchError,
)
from clipsearch.system.addresses import is_address

T = TypeVar("T")

FOLDER = ".clipsearch"
FORMAT, REGIONS_FORMAT, CODES_FORMAT, ADDRESS_FORMAT = 3, 4, 5, 6
"""Version of the format, that of an index with regions, that of one with codes, with regions or without, and that of
one with addresses, with any of these. A newer one is refused; an older one can be read, and is upgraded by a writer."""
LAST_FORMAT = ADDRESS_FORMAT
DATABASE, MATRIX, LOCK = "index.db", "embeddings.npy", "lock"
NEW_DATABASE = "index.new.db"
"""Name of a new database until it is complete."""
NEW_MATRIX = "embeddings.new.npy"
"""Name of a compacted matrix. Before its row numbers are committed it is a leftover; after that, and until it is
renamed, it is the matrix."""
HEADER_BYTES = 128
FINISHED = "finished"
"""The outcome of an `index` run that was not interrupted and did not fail."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (
    path BLOB PRIMARY KEY,
    options TEXT NOT NULL DEFAULT '{}'  -- JSON, how the root is searched
);
CREATE TABLE images (
    path BLOB PRIMARY KEY,        -- relative to the index's parent where it lies below it, else absolute
    row INTEGER UNIQUE,           -- in embeddings.npy; NULL for an unreadable file
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    hash BLOB,                    -- BLAKE2b-128 of the content; NULL if it could not be read
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    error TEXT,                   -- why the file is unreadable; NULL for an image
    ctime_ns INTEGER,             -- when the file's status last changed; NULL if unknown
    inode INTEGER,                -- its number in its file system; NULL if unknown
    date_source TEXT,             -- where taken_at is from: exif, xmp, name; NULL if it is NULL
    damage REAL                   -- the share of the picture that the file lacks, 0 to 0.5; NULL if it is whole
) WITHOUT ROWID;
CREATE INDEX images_by_hash ON images (hash) WHERE row IS NOT NULL;
CREATE TABLE folders (
    path BLOB PRIMARY KEY,        -- as in images
    drive TEXT,                   -- the file system that is mounted there; NULL if none is known to be
    kept INTEGER NOT NULL DEFAULT 0,  -- images below it that were not found, and whose records stay
    away INTEGER NOT NULL DEFAULT 0   -- 1 if they stay because the drive is not there
) WITHOUT ROWID;
CREATE TABLE dead (
    row INTEGER PRIMARY KEY,      -- belongs to no image any more
    hash BLOB,                    -- of the image that it belonged to, as are the others: it may come back
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    date_source TEXT,
    damage REAL
);
CREATE INDEX dead_by_hash ON dead (hash);
"""
ARCHIVES = """
CREATE TABLE IF NOT EXISTS archives (
    path BLOB PRIMARY KEY,        -- of its inside, as in images
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER,
    inode INTEGER,
    rules TEXT NOT NULL,          -- a digest of the rules of the search
    left_out TEXT NOT NULL,       -- JSON, numbers of members that are no images, by kind
    members INTEGER NOT NULL      -- how many records there are of its members
) WITHOUT ROWID
"""
"""A table that is made when the first archive is recorded. Without it, each archive is listed again."""
UPGRADES = {
    1: """
ALTER TABLE roots ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
CREATE INDEX images_by_hash ON images (hash) WHERE row IS NOT NULL;
ALTER TABLE dead ADD COLUMN hash BLOB;
ALTER TABLE dead ADD COLUMN width INTEGER;
ALTER TABLE dead ADD COLUMN height INTEGER;
ALTER TABLE dead ADD COLUMN taken_at TEXT;
CREATE INDEX dead_by_hash ON dead (hash);
""",
    2: """
ALTER TABLE images ADD COLUMN ctime_ns INTEGER;
ALTER TABLE images ADD COLUMN inode INTEGER;
CREATE TABLE folders (path BLOB PRIMARY KEY, drive TEXT, kept INTEGER NOT NULL DEFAULT 0,
    away INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
ALTER TABLE images ADD COLUMN date_source TEXT;
ALTER TABLE dead ADD COLUMN date_source TEXT;
ALTER TABLE images ADD COLUMN damage REAL;
ALTER TABLE dead ADD COLUMN damage REAL;
UPDATE images SET date_source = 'exif' WHERE taken_at IS NOT NULL;
UPDATE dead SET date_source = 'exif' WHERE taken_at IS NOT NULL;
UPDATE images SET taken_at = date_in_name(path) WHERE taken_at IS NULL AND row IS NOT NULL;
UPDATE images SET date_source = 'name' WHERE taken_at IS NOT NULL AND date_source IS NULL;
""",
}
"""SQL that upgrades a database by one format, by its old format. It calls the function `date_in_name`."""

OLD_RECORD = "path, row, size, mtime_ns, hash, width, height, taken_at, error"
"""The columns of a record up to format 2."""
RECORD = f"{OLD_RECORD}, ctime_ns, inode, date_source, damage"
"""The columns of a `Record`, in its order."""
OLD_SOURCE = "CASE WHEN taken_at IS NOT NULL THEN 'exif' END"
"""SQL for the `date_source` of a record up to format 2."""
DATE_SOURCES = ("exif", "xmp", "name", "file")
"""The sources of an image's date: EXIF or XMP, the file's name, or the time of the file's last change."""


def version_of(roots: Iterable[Root], *, regions: bool, codes: bool) -> int:
    """Return the format of an index with these roots, and with regions and codes or without."""
    if any(is_address(root.path) for root in roots):
        return ADDRESS_FORMAT
    return CODES_FORMAT if codes else REGIONS_FORMAT if regions else FORMAT


@dataclass(frozen=True)
class ModelRecord:
    """The model that made the vectors of an index."""

    name: str
    """The name of the model, as the user would type it."""
    revision: str | None
    """Commit hash on the hub; None for a local folder."""
    fingerprint: str
    """Hash of weights, configuration, tokenizer and preprocessing."""
    dim: int
    """D, the length of the vectors."""


class Computed(NamedTuple):
    """How vectors were computed. The differences between devices are so small that an index may mix them."""

    device: str
    """The name of the device in PyTorch: cpu, cuda:0, mps."""
    device_reason: str
    """Why this device was used, for people."""
    precision: str
    """fp32, bf16 or fp16."""
    precision_reason: str
    """Why this precision was used, for people."""
    engine: str = "torch"
    """numpy or torch. Earlier versions, which used torch only, recorded none."""


class ArrayFile(NamedTuple):
    """A .npy file of an index, to which its writer only appends rows."""

    name: str
    new_name: str
    """The name of a compacted file, as `NEW_MATRIX`."""
    descr: str
    """The type of its numbers, as in a .npy header."""

    def row_bytes(self, columns: int) -> int:
        """Return the number of bytes of a row."""
        return columns * int(self.descr[-1])


EMBEDDINGS = ArrayFile(MATRIX, NEW_MATRIX, "<f2")
"""(rows, D) the vector of each image."""
REGIONS = ArrayFile("regions.npy", "regions.new.npy", "<f2")
"""(R, D) the vector of each region."""
BOXES = ArrayFile("region_boxes.npy", "region_boxes.new.npy", "<i4")
"""(R, 5) the row in `EMBEDDINGS` of the image that each region is a part of, and left, top, right and bottom edge of
the region in pixels of the upright image."""
BOX_COLUMNS = 5
ARRAYS = (EMBEDDINGS, REGIONS, BOXES)
"""The files that are compacted."""
CODES = ArrayFile("codes.npy", "codes.new.npy", "|u1")
"""(rows, C) the codes of the first rows of `EMBEDDINGS`; see `index.codes`. They are made again after a compaction."""


class RegionsRecord(NamedTuple):
    """What the table `meta` says of the regions of an index that has them."""

    rows: int
    """R, the number of committed rows of `REGIONS` and of `BOXES`."""
    side: int
    """Length of the shorter side of the model's input in pixels, which the layout of regions depends on."""


class Record(NamedTuple):
    """The record of one file. For an unreadable file, `row` is None and `error` is the reason."""

    path: bytes
    """The absolute path."""
    row: int | None
    size: int
    mtime_ns: int
    hash: bytes | None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    error: str | None = None
    ctime_ns: int | None = None
    """When the file's status last changed, in ns since 1970; None if it is unknown."""
    inode: int | None = None
    """The number of the file in its file system; None if it is unknown."""
    date_source: str | None = None
    """The source of `taken_at`: "exif", "xmp" or "name"; None if there is no date. If the content has no date, writers
    set both by the file's name."""
    damage: float | None = None
    """The share of the image that is missing in the file, 0 to 0.5; None if it is whole."""


@dataclass(frozen=True)
class Contents:
    """Figures of an index: numbers of images and dead rows, and its size in bytes."""

    images: int
    dead_rows: int
    bytes: int
    regions: int | None = None
    """R, the number of regions, also of images that are gone; None if the index has none."""
    codes: int | None = None
    """The number of rows with codes; None if the index is to have none."""


class Root(NamedTuple):
    """A folder or file that was indexed."""

    path: bytes
    """The absolute path."""
    options: dict[str, Any]
    """How the root is searched; the store does not interpret it."""


class Folder(NamedTuple):
    """A folder in a root whose drive or missing images are recorded."""

    path: bytes
    """The absolute path."""
    drive: str | None
    """The name of the file system that is mounted there, from `system.drives`; None if none is known."""
    kept: int = 0
    """Number of images below it that the last run did not find and whose records stay."""
    away: bool = False
    """Whether they stay because the drive is not mounted."""


class ArchiveState(NamedTuple):
    """What the index knows of an archive that was searched completely: if it is the same, it need not be read."""

    path: bytes
    """The absolute path of its inside."""
    size: int
    mtime_ns: int
    ctime_ns: int | None
    inode: int | None
    rules: str
    """A digest of the rules of the search."""
    left_out: str
    """JSON: how many members were left out, by kind."""
    members: int = 0
    """Number of records of its members."""


class Known(NamedTuple):
    """The columns of a record that show whether its file has changed."""

    path: bytes
    size: int
    mtime_ns: int
    error: str | None
    opened: bool
    """Whether the content was read; otherwise `error` says nothing about the content."""
    ctime_ns: int | None
    inode: int | None
    damaged: bool = False
    """Whether a part of the image is missing."""
    row: int | None = None
    width: int | None = None
    height: int | None = None


def header(rows: int, columns: int, descr: str = EMBEDDINGS.descr) -> bytes:
    """Make a .npy header of fixed length, which can be rewritten in place as the file grows."""
    description = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    prefix = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + description.ljust(HEADER_BYTES - 11).encode("ascii") + b"\n"


def mismatch(folder: Path, known: ModelRecord, wanted: str) -> ModelMismatchError:
    """Make the error for an index of one model that is used with another, or with another revision of the same."""
    base = known.name.partition("@")[0]
    if known.revision and wanted.partition("@")[0].partition(" ")[0] == base:
        pinned = f"{base}@{known.revision[:12]}"
        return ModelMismatchError(
            f"The index in {folder} was made with another revision of model {base} than {wanted}: their vectors cannot "
            "be compared.",
            hint="pull-revision",
            model=pinned,
        )
    return ModelMismatchError(
        f"The index in {folder} was made with model {known.name}, not {wanted}: vectors of two models cannot be "
        "compared.",
        hint="other-model",
        model=known.name,
    )


def missing_index(folder: Path) -> IndexMissingError:
    """Make the error for a folder that holds no index."""
    return IndexMissingError(f"No index in {folder}.", hint="make-index", folder="PATH")


def broken_rows(folder: Path, count: int) -> str:
    """Make the sentence about rows that are not unit vectors, whose images no query finds."""
    some = "1 image has" if count == 1 else f"{count} images have"
    return f"{some} no usable vector in the index in {folder} (NaN, infinite, all zeros, or of another length)."


def damaged(folder: Path, what: str) -> IndexDamagedError:
    """Make the error for an index that contradicts itself."""
    return IndexDamagedError(
        f"The index in {folder} is damaged: {what}. Your images are untouched.", hint="damaged-index", folder=folder
    )


def noted(folder: Path, key: str, text: str | None, kind: Callable[..., T]) -> T | None:
    """Read what the index in `folder` notes in JSON under `key`; None if it notes nothing.

    Raises:
        IndexDamagedError: it is no JSON, or not that of a `kind`.
    """
    if not text:
        return None
    try:
        return kind(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise damaged(folder, f"{DATABASE}: {key}: {error}") from error


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into ClipsearchErrors, but not programming errors."""
    try:
        yield
    except sqlite3.ProgrammingError:  # a closed connection or the wrong thread: the index is not damaged
        raise
    except sqlite3.OperationalError as error:
        said = str(error)
        if "locked" in said:
            raise IndexLockedError(f"The index in {folder} is in use: {error}. Try again.") from error
        if any(word in said for word in ("readonly", "unable to open", "full", "disk I/O")):
            raise _unwritable(folder, said) from error
        raise damaged(folder, f"{DATABASE}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise damaged(folder, f"{DATABASE}: {error}") from error
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error


def _unwritable(folder: Path, reason: str) -> ClipsearchError:
    return IndexWriteError(
        f"Cannot write the index in {folder}: {reason}. What was saved before is safe. Check space and permissions.",
        hint="other-place",
    )
