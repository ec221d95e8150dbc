"""Text towers in the user's cache: one folder for each model's fingerprint, shared by all its indexes.

It holds the weights as a safetensors file that is memory-mapped, the tokenizer, tables for `quick_tokens` if it is of a
kind that has them, a small description, and the checksums of all these. `index` leaves it there, whatever format the
model came in, so that queries need neither torch nor transformers.

A tower is flushed before it gets its name, and compared with its checksums before it is used: damaged weights would
answer like sound ones, with other pictures. Files that the file system calls unchanged since are not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from clipsearch.errors import ModelError
from clipsearch.models.disk.integrity import read_header
from clipsearch.models.in_numpy.table_tokenizer import Rules, quick, quick_of
from clipsearch.models.in_numpy.text_tower import FixedLength, TextTower, TowerShape
from clipsearch.system.checksums import Compared, checksum, identity
from clipsearch.system.failures import is_shortage
from clipsearch.system.flushing import replace_flushed, sync_file, sync_folder
from clipsearch.system.places import below_home

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]

_LAYOUT = 4
"""Earlier ones described less, and had no checksums."""
_WEIGHTS, _TOKENIZER, _SHAPE = "text_tower.safetensors", "tokenizer.json", "text_tower.json"
_RULES, _TABLES = "tokens.json", "tokens.safetensors"
_CHECKSUMS, _COMPARED = "checksums.json", "compared.json"
_DTYPES: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "BF16": "<u2"}
_DIGEST_BYTES = 16
_HEADER_BYTES = 128
"""Of a .npy file with two short dimensions; the format fills it up to a multiple of 64."""


class TowerDamagedError(ModelError):
    """A text tower in the cache is not what was written there."""


def load(fingerprint: str) -> TextTower | None:
    """The text tower of the model with this fingerprint; None if it is not there.

    Raises:
        TowerDamagedError: its files are damaged, or some are missing.
        ModelError: the tokenizer cannot be read, when it is needed.
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
        _condemn(folder)
        raise TowerDamagedError(f"it cannot be read: {error}") from error


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str((folder / _TOKENIZER).read_text("utf-8"))
    except Exception as error:  # tokenizers raises nothing narrower
        if is_shortage(error):
            raise
        _condemn(folder)
        raise ModelError(
            f"{folder / _TOKENIZER} cannot be read ({error}). Run the same command again: it is made anew."
        ) from error


def _condemn(folder: Path) -> None:
    """Have a tower made anew though its files are what was written, by another version of a library, say."""
    with contextlib.suppress(OSError):
        (folder / _CHECKSUMS).unlink()


def damage(fingerprint: str, *, thorough: bool = False) -> str | None:
    """What is wrong with the text tower in the cache; None if it is whole, or not there.

    Files that were compared with their checksums before, and that the file system calls unchanged since, are not read
    again, unless it is to be `thorough`. What is found damaged then is compared again by whoever needs it next.
    """
    folder = tower_folder(fingerprint)
    if not os.path.lexists(folder):
        return None
    compared = Compared(folder / _COMPARED)
    try:
        checksums = _checksums(folder)
        paths = [folder / _CHECKSUMS, *(folder / name for name in checksums)]
        if not thorough and all(path in compared for path in paths):
            return None
        identities = [(path, identity(path)) for path in paths]
        wrong = [name for name, wanted in checksums.items() if checksum(folder / name) != wanted]
    except (OSError, ValueError) as error:
        compared.forget()
        return str(error) if isinstance(error, ValueError) else f"{_name(error)}: {error.strerror or error}"
    if wrong:
        compared.forget()
        return f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not what was written"
    compared.add(identities)
    return None


def is_whole(fingerprint: str, *, thorough: bool = False) -> bool:
    """Whether a text tower is in the cache, and as it was written; `thorough` is as for `damage`."""
    return os.path.lexists(tower_folder(fingerprint)) and damage(fingerprint, thorough=thorough) is None


def made_anew(name: str, found: str) -> str:
    """What is said when the damaged text tower of model `name` is replaced."""
    return f"The text tower of model {name!r} in the cache is damaged ({found}); it is made anew from the model."


def _checksums(folder: Path) -> dict[str, str]:
    """The names of a tower's files and their checksums.

    Raises:
        OSError: they cannot be read.
        ValueError: they are damaged.
    """
    try:
        checksums = json.loads((folder / _CHECKSUMS).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_CHECKSUMS} is damaged") from error
    if not isinstance(checksums, dict) or not {_WEIGHTS, _TOKENIZER, _SHAPE} <= checksums.keys():
        raise ValueError(f"{_CHECKSUMS} is damaged")
    return checksums


def _name(error: OSError) -> str:
    return os.path.basename(os.fsdecode(error.filename)) if error.filename else "a file"


def cache_folder() -> Path:
    """Where clipsearch keeps what can be made again (`CLIPSEARCH_CACHE`, else the system's cache folder)."""
    given = os.environ.get("CLIPSEARCH_CACHE")
    return Path(given) if given else below_home(user_cache_path("clipsearch", appauthor=False))


def tower_folder(fingerprint: str) -> Path:
    """Where the text tower of a model lies, or would lie."""
    return cache_folder() / f"text-towers-{_LAYOUT}" / fingerprint


def save(
    fingerprint: str,
    weights: Mapping[str, npt.NDArray[np.floating]],
    shape: TowerShape,
    tokenizer: Tokenizer,
) -> None:
    """Leave a text tower in the cache, whole or not at all, in the place of a damaged one if there is one.

    `weights` are named as `TextTower` wants them.

    Raises:
        ModelError: the cache cannot be written.
    """
    import tempfile  # queries find a tower, and start without what makes one

    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    target = tower_folder(fingerprint)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as name:
            made = Path(name) / "tower"
            made.mkdir()
            save_file({key: np.ascontiguousarray(value) for key, value in weights.items()}, made / _WEIGHTS)
            tokenizer.save(str(made / _TOKENIZER))
            if tokens := quick_of(tokenizer):
                save_file(dict(tokens.tables), made / _TABLES)
                (made / _RULES).write_text(tokens.rules.json(), "utf-8")
            (made / _SHAPE).write_text(json.dumps(asdict(shape), indent=1), "utf-8")
            seal(made)
            _put(made, target, Path(name) / "damaged", fingerprint)
    except (OSError, SafetensorError) as error:
        if is_whole(fingerprint):
            return  # another process was first
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelError(
            f"Cannot write the text tower to {target}: {reason}. "
            "Name a folder that can be written with CLIPSEARCH_CACHE."
        ) from error
    _remove_earlier(fingerprint)


def seal(folder: Path) -> None:
    """Flush the files of a tower to the disk and write down what they hold.

    Raises:
        OSError: they cannot be read or written.
    """
    files = sorted(path for path in folder.iterdir() if path.name not in (_CHECKSUMS, _COMPARED))
    for path in files:
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors lets nobody else read, and caches are shared
        sync_file(path)
    identities = [(path, identity(path)) for path in files]
    checksums = {path.name: checksum(path) for path in files}
    replace_flushed(folder / _CHECKSUMS, json.dumps(checksums, indent=1).encode())
    compared = Compared(folder / _COMPARED)
    compared.add([*identities, (folder / _CHECKSUMS, identity(folder / _CHECKSUMS))])


def _put(made: Path, target: Path, aside: Path, fingerprint: str) -> None:
    """Give a new tower its place, from which a damaged one goes `aside`."""
    if is_whole(fingerprint):
        return  # another process was first
    if os.path.lexists(target):
        target.replace(aside)
    made.replace(target)
    sync_folder(target.parent)


def _remove_earlier(fingerprint: str) -> None:
    """The same tower as an earlier layout has it would only take room."""
    import shutil

    for folder in cache_folder().glob(f"text-towers-*/{fingerprint}"):
        layout = re.fullmatch(r"text-towers-(\d+)", folder.parent.name)
        if layout and int(layout[1]) < _LAYOUT:
            shutil.rmtree(folder, ignore_errors=True)


def remembered(fingerprint: str, texts: Sequence[str], dim: int, encode: Callable[[Sequence[str]], Array]) -> Array:
    """(Q, D) what `encode` makes of `texts`, which every query needs: kept beside the model's text tower.

    The file is a .npy file with its checksum behind it. Whatever else lies there is made anew.
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
    """What `remembered` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged or something else.
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


def map_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file, memory-mapped; bfloat16, which numpy lacks, as unsigned whole numbers.

    The library's own numpy reader copies every tensor, which for ViT-B/32 is 150 MB a query.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or its header names other values than it has.
        KeyError: a tensor is of a type that no tower has.
    """
    header = read_header(path)
    # Not np.memmap, which runs Python code for each array that is made of it, results of the tower's layers included.
    with path.open("rb") as file:
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    return {
        name: data[tensor.start : tensor.end].view(_DTYPES[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in header.items()
    }
