"""Text towers in the user's cache: one folder for each model's fingerprint, shared by all its indexes.

A folder holds the weights as a safetensors file that is memory-mapped, the tokenizer, its tables for `table_tokenizer`
if its kind has them, a small description, and the checksums of all these. `index` writes it, whatever the format of the
model, so that queries need neither torch nor transformers. `sealed` makes sure that a damaged tower is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError
from clipsearch.models.in_numpy import sealed
from clipsearch.models.in_numpy.sealed import cache_folder, map_safetensors
from clipsearch.models.in_numpy.table_tokenizer import Rules, quick, quick_of
from clipsearch.models.in_numpy.text_tower import FixedLength, TextTower, TowerShape
from clipsearch.system.failures import is_shortage
from clipsearch.system.flushing import replace_flushed
from clipsearch.unit import Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from clipsearch.models.disk.files import ModelFiles


_LAYOUT = 4
"""Version of the folder's content; earlier ones described less and had no checksums."""
_WEIGHTS, _TOKENIZER, _SHAPE = "text_tower.safetensors", "tokenizer.json", "text_tower.json"
_RULES, _TABLES = "tokens.json", "tokens.safetensors"
_NEEDED = frozenset({_WEIGHTS, _TOKENIZER, _SHAPE})
_DIGEST_BYTES = 16
_HEADER_BYTES = 128
"""Length of the header of a .npy file with two short dimensions; the format pads it to a multiple of 64."""


class TowerDamagedError(ModelError):
    """A text tower in the cache is damaged."""


def load(fingerprint: str) -> TextTower | None:
    """Load the text tower of the model with this fingerprint; return None if the cache has none.

    Raises:
        TowerDamagedError: its files are damaged, or some are missing.
        ModelError: the tokenizer cannot be read; it is raised when the tokenizer is first needed.
    """
    folder = tower_folder(fingerprint)
    if not os.path.lexists(folder):
        return None
    if found := damage(fingerprint):
        raise TowerDamagedError(found)
    try:
        description = json.loads((folder / _SHAPE).read_text("utf-8"))
        fixed = description.pop("fixed")
        shape = TowerShape(**description, fixed=fixed and FixedLength(**fixed))
        weights = map_safetensors(folder / _WEIGHTS)
        tokens = None
        if (folder / _RULES).exists():
            rules = Rules.from_json((folder / _RULES).read_text("utf-8"))
            tokens = quick(rules, map_safetensors(folder / _TABLES))
        return TextTower(weights, shape, lambda: _tokenizer(folder), tokens)
    except Exception as error:  # what was written is not what is read: tokenizers raises nothing narrower
        if is_shortage(error):
            raise
        sealed.condemn(folder)
        raise TowerDamagedError(f"it cannot be read: {error}") from error


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str((folder / _TOKENIZER).read_text("utf-8"))
    except Exception as error:  # tokenizers raises nothing narrower
        if is_shortage(error):
            raise
        sealed.condemn(folder)
        raise ModelError(
            f"{folder / _TOKENIZER} cannot be read ({error}). Run the same command again: it is made anew."
        ) from error


def damage(fingerprint: str, *, thorough: bool = False) -> str | None:
    """Return what is wrong with the text tower in the cache; None if nothing is, or if there is none.

    `thorough` is that of `sealed.damage`.
    """
    return sealed.damage(tower_folder(fingerprint), _NEEDED, thorough=thorough)


def is_whole(fingerprint: str, *, thorough: bool = False) -> bool:
    """Return whether a text tower is in the cache and undamaged; `thorough` is that of `sealed.damage`."""
    return sealed.is_whole(tower_folder(fingerprint), _NEEDED, thorough=thorough)


def made_anew(name: str, found: str) -> str:
    """Return the warning that the damaged text tower of model `name` is replaced."""
    return f"The text tower of model {name!r} in the cache is damaged ({found}); it is made anew from the model."


def tower_folder(fingerprint: str) -> Path:
    """Return the folder for the text tower of a model, whether it exists or not."""
    return cache_folder() / f"text-towers-{_LAYOUT}" / fingerprint


def save(
    fingerprint: str,
    weights: Mapping[str, npt.NDArray[np.floating]],
    shape: TowerShape,
    tokenizer: Tokenizer,
) -> None:
    """Write a text tower to the cache, completely or not at all, replacing a damaged one.

    `weights` have the names that `TextTower` wants.

    Raises:
        ModelError: the cache cannot be written.
    """
    from safetensors.numpy import save_file  # queries only read the cache, and should not wait for this import

    def fill(made: Path) -> None:
        save_file({key: np.ascontiguousarray(value) for key, value in weights.items()}, made / _WEIGHTS)
        tokenizer.save(str(made / _TOKENIZER))
        if tokens := quick_of(tokenizer):
            save_file(dict(tokens.tables), made / _TABLES)
            (made / _RULES).write_text(tokens.rules.json(), "utf-8")
        (made / _SHAPE).write_text(json.dumps(asdict(shape), indent=1), "utf-8")

    sealed.write(tower_folder(fingerprint), _NEEDED, "the text tower", fill)
    _remove_earlier(fingerprint)


def make(fingerprint: str, files: ModelFiles) -> bool:
    """Save the text tower of a model in the cache, from the model's own files, unless it is there.

    Args:
        fingerprint: That of these very files.
        files: The files of the model.

    Returns:
        False if this takes transformers; `Encoder.save_text_tower` does it then.

    Raises:
        ModelError: the model's files cannot be read, or the cache cannot be written.
    """
    if is_whole(fingerprint):
        return True
    from clipsearch.models.in_numpy import extraction  # queries find a tower, and start without what makes one

    parts = extraction.text_tower(files)
    if parts is None:
        return False
    save(fingerprint, parts.weights, parts.shape, parts.tokenizer)
    return True


def _remove_earlier(fingerprint: str) -> None:
    """Remove the same tower in earlier layouts, which nothing reads any more."""
    import shutil

    for folder in cache_folder().glob(f"text-towers-*/{fingerprint}"):
        layout = re.fullmatch(r"text-towers-(\d+)", folder.parent.name)
        if layout and int(layout[1]) < _LAYOUT:
            shutil.rmtree(folder, ignore_errors=True)


def remembered(fingerprint: str, texts: Sequence[str], dim: int, encode: Callable[[Sequence[str]], Array]) -> Array:
    """Return the vectors of texts that every query needs, which are kept in a file beside the model's text tower.

    The file is a .npy file with a checksum after it. If it is missing or damaged, `encode` makes the vectors anew.

    Args:
        fingerprint: Fingerprint of the model.
        texts: Q texts.
        dim: Dimensions D of the model's vectors.
        encode: Embeds texts as (Q, D) float32.

    Returns:
        (Q, D) float32.
    """
    name = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    path = tower_folder(fingerprint) / f"texts-{name}.npy"
    with contextlib.suppress(OSError, ValueError):
        return _remembered(path, (len(texts), dim))
    vectors = np.asarray(encode(texts), np.float32)
    written = io.BytesIO()
    np.save(written, vectors)
    with contextlib.suppress(OSError):
        replace_flushed(path, written.getvalue() + _digest(written.getvalue()))
    return vectors


def _remembered(path: Path, shape: tuple[int, int]) -> Array:
    """Read what `remembered` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged or something else.
    """
    most = shape[0] * shape[1] * 4 + _HEADER_BYTES + _DIGEST_BYTES
    with path.open("rb") as file:
        content = file.read(most + 1)
    array, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(content) > most or _digest(array) != digest:
        raise ValueError("no checksum")
    vectors = np.load(io.BytesIO(array), allow_pickle=False)
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise ValueError(f"{vectors.dtype} of shape {vectors.shape}")
    return np.asarray(vectors, np.float32)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
