"""Folders in the user's cache that are complete or not used: a few files with their checksums.

Everything is flushed before a folder gets its name, and compared with its checksums before it is used: damaged weights
would give wrong hits without any error. Files that the file system reports as unchanged since are not read again.
Knows nothing of what the files hold.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from clipsearch.errors import ModelError
from clipsearch.models.disk.integrity import read_header
from clipsearch.system.checksums import Compared, checksum, identity
from clipsearch.system.failures import is_shortage
from clipsearch.system.flushing import replace_flushed, sync_file, sync_folder
from clipsearch.system.places import below_home

_CHECKSUMS, _COMPARED = "checksums.json", "compared.json"
_DTYPES: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "BF16": "<u2"}


def cache_folder() -> Path:
    """Return the folder for files that can be made again: `CLIPSEARCH_CACHE`, or else the system's cache folder."""
    given = os.environ.get("CLIPSEARCH_CACHE")
    return Path(given) if given else below_home(user_cache_path("clipsearch", appauthor=False))


def damage(folder: Path, needed: frozenset[str], *, thorough: bool = False) -> str | None:
    """Compare the files of a folder with their checksums.

    Args:
        folder: The folder, which need not exist.
        needed: Names of files that it has to hold.
        thorough: Read all files, also those that were compared before and that the file system reports as unchanged
            since. After damage is found, the next comparison reads all files as well.

    Returns:
        What is wrong; None if nothing is, or if there is no such folder.

    Raises:
        OSError: the system lacks memory, open files or other means to read the folder.
    """
    if not os.path.lexists(folder):
        return None
    compared = Compared(folder / _COMPARED)
    try:
        checksums = _checksums(folder, needed)
        paths = [folder / _CHECKSUMS, *(folder / name for name in checksums)]
        if not thorough and all(path in compared for path in paths):
            return None
        identities = [(path, identity(path)) for path in paths]
        wrong = [name for name, wanted in checksums.items() if checksum(folder / name) != wanted]
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise  # the files may be intact
        compared.forget()
        return str(error) if isinstance(error, ValueError) else f"{_name(error)}: {error.strerror or error}"
    if wrong:
        compared.forget()
        return f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not what was written"
    compared.add(identities)
    return None


def is_whole(folder: Path, needed: frozenset[str], *, thorough: bool = False) -> bool:
    """Return whether a folder exists and is undamaged; arguments and errors are those of `damage`."""
    return os.path.lexists(folder) and damage(folder, needed, thorough=thorough) is None


def condemn(folder: Path) -> None:
    """Mark a folder as damaged though its checksums are right, as if another version of a library wrote its files."""
    with contextlib.suppress(OSError):
        (folder / _CHECKSUMS).unlink()


def write(folder: Path, needed: frozenset[str], what: str, fill: Callable[[Path], None]) -> None:
    """Write a folder completely or not at all, replacing a damaged one.

    Args:
        folder: The folder.
        needed: Names of files that `fill` writes.
        what: What the folder holds, for the error.
        fill: Writes the files into the folder that it is given.

    Raises:
        ModelError: the folder cannot be written.
    """
    import tempfile  # queries only read the cache, and should not wait for this import

    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
            made = Path(name) / "tower"
            made.mkdir()
            fill(made)
            seal(made)
            if is_whole(folder, needed):
                return  # another process was first
            if os.path.lexists(folder):
                folder.replace(Path(name) / "damaged")
            made.replace(folder)
            sync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        if is_whole(folder, needed):
            return
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelError(
            f"Cannot write {what} to {folder}: {reason}. Name a folder that can be written with CLIPSEARCH_CACHE."
        ) from error


def seal(folder: Path) -> None:
    """Flush the files of a folder to the disk and write their checksums.

    Raises:
        OSError: they cannot be read or written.
    """
    files = sorted(path for path in folder.iterdir() if path.name not in (_CHECKSUMS, _COMPARED))
    for path in files:
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors forbids others to read, and caches are shared
        sync_file(path)
    identities = [(path, identity(path)) for path in files]
    checksums = {path.name: checksum(path) for path in files}
    replace_flushed(folder / _CHECKSUMS, json.dumps(checksums, indent=1).encode())
    compared = Compared(folder / _COMPARED)
    compared.add([*identities, (folder / _CHECKSUMS, identity(folder / _CHECKSUMS))])


def _checksums(folder: Path, needed: frozenset[str]) -> dict[str, str]:
    """Read the checksums of a folder's files, by name.

    Raises:
        OSError: the checksums cannot be read.
        ValueError: the checksums are damaged.
    """
    try:
        checksums = json.loads((folder / _CHECKSUMS).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_CHECKSUMS} is damaged") from error
    if not isinstance(checksums, dict) or not needed <= checksums.keys():
        raise ValueError(f"{_CHECKSUMS} is damaged")
    return checksums


def _name(error: OSError) -> str:
    return os.path.basename(os.fsdecode(error.filename)) if error.filename else "a file"


def map_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Memory-map the tensors of a safetensors file; bfloat16, which NumPy lacks, becomes uint16.

    The library's own numpy reader copies every tensor, which for ViT-B/32 is 150 MB a query.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a safetensors file, or its header does not match its length.
        KeyError: a tensor is of a type that no supported tower has.
    """
    header = read_header(path)
    # np.memmap would run Python code for each array that is derived from it, such as the results of layers.
    with path.open("rb") as file:
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    return {
        name: data[tensor.start : tensor.end].view(_DTYPES[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in header.items()
    }
