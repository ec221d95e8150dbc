"""Known labels of images: from the names of folders, from a table, or from CIFAR's files.

Knows nothing of models and predictions, and runs no code from a file.

CIFAR-10 and CIFAR-100 are read as their author publishes them ("python version"; A. Krizhevsky, "Learning Multiple
Layers of Features from Tiny Images", 2009): pickles of a dict with `data`, (N, 3072) bytes, each row an image of
32 x 32 pixels, all of its red before all of its green and blue.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsearch.datasets.cifar import read_dict
from clipsearch.datasets.tables import IMAGE_COLUMNS, Column, check_utf8, decoded, encoding_hint, path_in, read_table
from clipsearch.errors import InputError
from clipsearch.images.files import ImageFile
from clipsearch.images.named_files import MISSING, named_files
from clipsearch.system.bounded import read_list_in
from clipsearch.system.paths import absolute

_log = logging.getLogger(__name__)
_COLUMNS = (Column("image", "paths", IMAGE_COLUMNS), Column("label", "labels", ("label",)))
_SIDE = 32
"""Width and height of a CIFAR image in pixels."""
_LARGEST = 2**30
"""Most bytes of a file that is read; the largest of CIFAR's has 155 MB."""
_PICKLE, _PROTOCOLS = 0x80, range(2, 6)
"""First byte of a pickle, and the values of its second; no image begins so."""


@dataclass(frozen=True)
class Kind:
    """Names by which a variant of CIFAR stores its labels."""

    labels: str
    """Key in a batch: a label number for each image."""
    names: str
    """Key in the file beside the batches: the names of the label numbers."""
    file: str
    """Name of that file."""


CIFAR_10 = Kind("labels", "label_names", "batches.meta")
CIFAR_100 = Kind("fine_labels", "fine_label_names", "meta")
CIFAR_100_COARSE = Kind("coarse_labels", "coarse_label_names", "meta")


@dataclass(frozen=True)
class CifarBatch:
    """Images and labels of one file of CIFAR."""

    path: bytes
    """Absolute path of the file."""
    pixels: npt.NDArray[np.uint8]
    """(N, 32, 32, 3) RGB."""
    truth: list[str]
    """(N) label of each image."""
    labels: list[str]
    """All labels of this variant, by number."""


def folder_labels(paths: Iterable[bytes]) -> list[str]:
    """Return the name of the folder that contains each image, as in torchvision's `ImageFolder`.

    Names that are not UTF-8 have replacement characters.
    """
    return [os.path.basename(os.path.dirname(path)).decode("utf-8", "replace") for path in paths]


def table_labels(path: Path, *, encoding: str | None = None) -> dict[bytes, str]:
    """Read the labels of images from a table: absolute path -> label.

    The first line names the columns (see `tables`). If encoding or separator are not UTF-8 and commas, that is logged.

    Args:
        path: The table. Relative paths in it start at its folder.
        encoding: Its encoding, if neither UTF-8 nor given by a byte order mark.

    Raises:
        InputError: it cannot be read, a column or a field is missing, an image does not exist or has two labels.
    """
    table = read_table(decoded(read_list_in(path), str(path), encoding), str(path), _COLUMNS)
    if table.assumed:
        _log.warning(table.assumed)
    found: dict[bytes, str] = {}
    for row in table.rows:
        name, label = (value.strip() for value in row.values)
        if not name or not label:
            raise InputError(f"{row.where}: the {'label' if name else 'image'} is missing.")
        check_utf8(label, f"{row.where}: the label")
        if not label.isprintable():
            raise InputError(f"{row.where}: the label {label!r} is no text of one line.")
        file = path_in(path.parent, row.values[0], encoding)
        if found.setdefault(file, label) != label:
            raise InputError(f"{row.where}: {name} is {found[file]!r} in another line.")
    if not found:
        raise InputError(f"{path} names no image.")
    _check_there(path, found)
    return found


def labels_of(paths: Iterable[bytes], known: dict[bytes, str], source: Path) -> list[str]:
    """Return the label of each image in `known`, which was read from the file `source`.

    Raises:
        InputError: an image has none.
    """
    paths = list(paths)
    missing = [path for path in paths if path not in known]
    if missing:
        more = f", nor for {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{source} has no label for {os.fsdecode(missing[0])}{more}. Add them, or leave these out.")
    return [known[path] for path in paths]


def is_cifar(path: Path) -> bool:
    """Whether a file is a pickle like CIFAR's, by its first bytes."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would block
            return False
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError:
        return False  # reading it will report the error
    return len(start) == 2 and start[0] == _PICKLE and start[1] in _PROTOCOLS  # noqa: PLR2004  (two bytes)


def read_cifar(path: Path, *, coarse: bool = False) -> CifarBatch:
    """Read a batch of CIFAR-10 or CIFAR-100, with the labels' names from the file beside it (`batches.meta` or `meta`).

    With `coarse`, the labels are CIFAR-100's 20 superclasses instead of its 100 classes.

    Raises:
        InputError: a file cannot be read, or is no such file; no code in it is run.
    """
    # 1. The batch.
    batch = _read(path)
    kinds = (CIFAR_100_COARSE,) if coarse else (CIFAR_10, CIFAR_100)
    kind = next((kind for kind in kinds if kind.labels in batch), None)
    if kind is None or "data" not in batch:
        wanted = "data and " + " or ".join(kind.labels for kind in kinds)
        raise InputError(f"{path} is no batch of CIFAR{'-100' if coarse else ''}: there must be {wanted} in it.")
    data, numbers = batch["data"], batch[kind.labels]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * _SIDE**2:  # noqa: PLR2004
        raise InputError(f"{path} is no batch of CIFAR: its data are not rows of {3 * _SIDE**2} bytes.")
    # 2. The names of its label numbers.
    labels = _names(path.parent / kind.file, kind)
    if not isinstance(numbers, list) or len(numbers) != len(data) or not all(n in range(len(labels)) for n in numbers):
        raise InputError(f"{path}: its {kind.labels} are not one number from 0 to {len(labels) - 1} for each image.")
    pixels = data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return CifarBatch(absolute(path), pixels, [labels[number] for number in numbers], labels)


def cifar_files(batches: Iterable[CifarBatch], folder: Path) -> list[ImageFile]:
    """Write the images of batches as PPM files (lossless) into `folder`; return the files in order.

    Raises:
        InputError: they cannot be written.
    """
    head = b"P6 %d %d 255\n" % (_SIDE, _SIDE)
    files: list[ImageFile] = []
    try:
        for batch in batches:
            for pixels in batch.pixels:
                path, content = folder / f"{len(files)}.ppm", head + pixels.tobytes()
                path.write_bytes(content)
                files.append(ImageFile(absolute(path), len(content), 0))
    except OSError as error:
        raise InputError(f"Cannot unpack CIFAR to {folder}: {error.strerror}") from error
    return files


def _check_there(path: Path, files: Iterable[bytes]) -> None:
    unseen = named_files(file for file in files if not os.path.exists(file))
    gone = [file.path for file in unseen if file.problem is not None and file.problem.startswith(MISSING)]
    if gone:
        more = f", and {len(gone) - 1} more are not there" if len(gone) > 1 else ""
        raise InputError(f"{path}: there is no image {os.fsdecode(gone[0])}{more}.", hint=encoding_hint(gone))


def _names(path: Path, kind: Kind) -> list[str]:
    """Read the names of the label numbers."""
    names = _read(path).get(kind.names)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise InputError(f"{path}: there is no list of {kind.names} in it.")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]


def _read(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise InputError(f"{path} is no file of CIFAR: it has {size} bytes.")
        return read_dict(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}. CIFAR's files belong together: unpack the whole archive.") from error
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"Cannot read {path} as a file of CIFAR: {error}. Nothing in it was run.") from error
