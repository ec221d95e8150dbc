"""Loading of an `Encoder`. Imports torch and transformers within functions only."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from clipsearch.system.cores import available
from clipsearch.system.limits import check_memory, check_threads
from clipsearch.system.places import check_current_folder

if TYPE_CHECKING:
    from pathlib import Path

    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.encoder_options import EncoderOptions
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.in_torch.image_encoder import ImageEncoder

_COMPARED = "compared.json"
"""File in the user's cache: files of models that have the hub's hashes."""
_FINGERPRINTS = "fingerprints.json"
"""File in the user's cache: fingerprints of models, and the files from which they were computed."""


_OF_TORCH = 750 << 20
"""Bytes of address space for importing torch and transformers; with less, torch aborts the process."""
_OF_TORCH_ITSELF = 2
"""Number of torch's threads besides those that decode and compute."""


def load_encoder(files: ModelFiles, options: EncoderOptions) -> Encoder:
    """Load the model in `files`; its weights are hashed while Python imports torch and transformers.

    Raises:
        ClipsearchError: the model cannot be loaded, its files are damaged, or there is no such device.
    """
    _check_resources()
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(checked_fingerprint, files)
        from clipsearch.models.in_torch.encoder import Encoder

        return Encoder(
            files,
            options.device,
            options.precision,
            batch_size=options.batch_size,
            exact=options.exact,
            known_fingerprint=hashed.result(),
        )


def load_image_encoder(name: str, tower: ImageTower, options: EncoderOptions) -> ImageEncoder:
    """Make the image tower of model `name` in torch from its `tower` in NumPy, without importing transformers.

    Raises:
        ClipsearchError: there is no such device, or not enough memory.
    """
    _check_resources()
    from clipsearch.models.in_torch.image_encoder import ImageEncoder

    return ImageEncoder.of_tower(name, tower, options)


def _check_resources() -> None:
    """Check the resources without which torch would end the process."""
    check_current_folder()  # without a current folder, MKL ends the process
    check_memory(_OF_TORCH)
    check_threads(2 * available() + _OF_TORCH_ITSELF)


def checked_fingerprint(files: ModelFiles) -> str:
    """Compare the model's files with the hub's hashes and return the model's fingerprint.

    Without the comparison, damaged weights would count as another model with its own fingerprint, and an index would
    be made with it. Files that were compared before and that the file system reports as unchanged are not read again.

    Raises:
        ModelError: the files are damaged.
    """
    from clipsearch.models.disk import hub
    from clipsearch.models.disk.files import model_paths
    from clipsearch.models.disk.hub import incomplete
    from clipsearch.models.in_numpy.sealed import cache_folder
    from clipsearch.system.checksums import Compared, identity

    compared = Compared(cache_folder() / _COMPARED)
    new = [path for path in model_paths(files.folder) if hub.is_blob(path) and path.resolve() not in compared]
    identities = [(path.resolve(), identity(path)) for path in new]
    if damaged := [path.name for path in new if not hub.blob_is_whole(path)]:
        names, are = " and ".join(damaged), "is" if len(damaged) == 1 else "are"
        raise incomplete(files.folder, f"{names} in {files.folder} {are} damaged: not what the hub had.")
    if new:
        with suppress(OSError):
            cache_folder().mkdir(parents=True, exist_ok=True)
        compared.add(identities)
    return known_fingerprint(files.folder)


def known_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a model, from the cache if the file system reports the model's files as unchanged.

    Hashing some hundred megabytes takes longer than embedding an image.
    """
    from clipsearch.models.disk.files import fingerprint, model_paths
    from clipsearch.models.in_numpy.sealed import cache_folder
    from clipsearch.system.checksums import identity
    from clipsearch.system.flushing import replace_flushed

    note, key = cache_folder() / _FINGERPRINTS, str(folder.resolve())
    files = [[path.name, *identity(path)] for path in model_paths(folder)]  # before they are read
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        known = dict(json.loads(note.read_bytes()))
        if known[key]["files"] == files and re.fullmatch("[0-9a-f]{32}", known[key]["fingerprint"]):
            return str(known[key]["fingerprint"])
    found = fingerprint(folder)
    known[key] = {"files": files, "fingerprint": found}
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        kept = {path: one for path, one in known.items() if os.path.isdir(path)}
        replace_flushed(note, json.dumps(kept, indent=1).encode())
    return found
