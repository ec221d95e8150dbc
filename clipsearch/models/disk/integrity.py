"""Checks of single files of a model, without reading all of them.

Imports no model library, and runs no code from the files.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LFS_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100_000_000
"""Limit of the safetensors library for the length of a header, in bytes."""


def damage(path: Path) -> str | None:
    """Return what is wrong with a file, as far as its beginning and length show; None if nothing is."""
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        return f"{path} is no file but Git LFS's note where it lies. In a clone, run: git lfs pull."
    if path.suffix in (".safetensors", ".bin"):
        wrong = _broken_safetensors(path) if path.suffix == ".safetensors" else _broken_pickle(path)
        return f"The weights in {path.parent} cannot be loaded: {path.name} {wrong}." if wrong else None
    return None if path.stat().st_size else f"{path} is empty."


def _broken_safetensors(path: Path) -> str | None:
    """Return what is wrong with a safetensors file, whose header says how long it must be; None if nothing is."""
    try:
        wanted = max((tensor.end for tensor in read_header(path).values()), default=0)
    except ValueError as error:
        return str(error)
    size = path.stat().st_size
    if not wanted:
        return "holds no tensors"
    return None if size == wanted else f"has {size:,} bytes and should have {wanted:,}"


def _broken_pickle(path: Path) -> str | None:
    """Return what is wrong with PyTorch's weights, which transformers loads without running code; None if nothing."""
    import zipfile  # not above: every query imports this module

    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return None if path.stat().st_size else "is empty"
    if not zipfile.is_zipfile(path):
        return "is cut short"
    return "is a TorchScript pickle, which may run any code" if is_torchscript(path) else None


@dataclass(frozen=True)
class Tensor:
    """One tensor as the header of a safetensors file describes it."""

    dtype: str
    """Type of the values in the format's notation: F32, F16, BF16 ..."""
    shape: tuple[int, ...]
    start: int
    """Position in the file of the first byte of its values."""
    end: int
    """Position behind the last byte of its values."""


def read_header(path: Path) -> dict[str, Tensor]:
    """Read the names, types and shapes of the tensors of a safetensors file, without their values.

    The format: 8 bytes with the length of the header, the header in JSON, the values
    (https://huggingface.co/docs/safetensors).

    Raises:
        ValueError: the file has no such header; the message is to be read after the file's name.
    """
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0  # noqa: PLR2004
        if not 1 < length <= _LONGEST_HEADER:
            raise ValueError("is no safetensors file" if first else "is empty")
        header = file.read(length)
    if len(header) < length:
        raise ValueError("is cut short")
    try:
        described = json.loads(header)
        described.pop("__metadata__", None)
        return {name: _tensor(one, 8 + length) for name, one in described.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("is no safetensors file") from error


def _tensor(described: dict[str, Any], behind_header: int) -> Tensor:
    start, end = (behind_header + int(offset) for offset in described["data_offsets"])
    return Tensor(described["dtype"], tuple(described["shape"]), start, end)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a zip archive with the code of a TorchScript model."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
