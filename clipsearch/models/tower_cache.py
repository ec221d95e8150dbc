"""Text towers in the user's cache: one folder for each model's fingerprint, shared by all its indexes.

It holds the weights as a safetensors file that is memory-mapped, the tokenizer, tables for `quick_tokens` if it is of a
kind that has them, and a small description. `index` leaves it there, whatever format the model came in, so that queries
need neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from clipsearch.errors import ModelError
from clipsearch.models.quick_tokens import Rules, quick, quick_of
from clipsearch.models.text_tower import FixedLength, TextTower, TowerShape

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]

_WEIGHTS, _TOKENIZER, _SHAPE = "text_tower.safetensors", "tokenizer.json", "text_tower.json"
_RULES, _TABLES = "tokens.json", "tokens.safetensors"
_DTYPES: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}


def load(fingerprint: str) -> TextTower | None:
    """The text tower of the model with this fingerprint; None if it is not there.

    Raises:
        ModelError: its files are damaged; the tokenizer's also when it is needed.
    """
    folder = tower_folder(fingerprint)
    if not folder.exists():
        return None
    with _undamaged(folder):
        description = json.loads((folder / _SHAPE).read_text("utf-8"))
        fixed = description.pop("fixed")
        shape = TowerShape(**description, fixed=fixed and FixedLength(**fixed))
        weights = map_safetensors(folder / _WEIGHTS)
        tokens = None
        if (folder / _RULES).exists():
            rules = Rules.from_json((folder / _RULES).read_text("utf-8"))
            tokens = quick(rules, map_safetensors(folder / _TABLES))
        tower = TextTower(weights, shape, lambda: _tokenizer(folder), tokens)
    return tower  # noqa: RET504  (mypy takes it that the block above may end early)


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    with _undamaged(folder):
        tokenizer = Tokenizer.from_str((folder / _TOKENIZER).read_text("utf-8"))
    return tokenizer  # noqa: RET504


@contextlib.contextmanager
def _undamaged(folder: Path) -> Iterator[None]:
    """Within: files of a tower are read."""
    try:
        yield
    except Exception as error:  # missing or cut files, damaged JSON; tokenizers raises nothing narrower
        raise ModelError(
            f"The text tower in {folder} is damaged ({error}). Delete that folder and try again."
        ) from error


def cache_folder() -> Path:
    """Where clipsearch keeps what can be made again (`CLIPSEARCH_CACHE`, else the system's cache folder)."""
    given = os.environ.get("CLIPSEARCH_CACHE")
    return Path(given) if given else user_cache_path("clipsearch", appauthor=False)


def tower_folder(fingerprint: str) -> Path:
    """Where the text tower of a model lies, or would lie."""
    return cache_folder() / "text-towers-3" / fingerprint  # earlier ones described less


def save(
    fingerprint: str,
    weights: Mapping[str, npt.NDArray[np.floating]],
    shape: TowerShape,
    tokenizer: Tokenizer,
) -> None:
    """Leave a text tower in the cache, whole or not at all.

    `weights` are named as `TextTower` wants them.

    Raises:
        ModelError: the cache cannot be written.
    """
    from safetensors.numpy import save_file

    target = tower_folder(fingerprint)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            made = Path(name) / "tower"
            made.mkdir()
            save_file({key: np.ascontiguousarray(value) for key, value in weights.items()}, made / _WEIGHTS)
            tokenizer.save(str(made / _TOKENIZER))
            if tokens := quick_of(tokenizer):
                save_file(dict(tokens.tables), made / _TABLES)
                (made / _RULES).write_text(tokens.rules.json(), "utf-8")
            (made / _SHAPE).write_text(json.dumps(asdict(shape), indent=1), "utf-8")
            if not target.exists():
                made.replace(target)  # fails if another process was first, and then it is there
    except OSError as error:
        if target.exists():
            return
        raise ModelError(
            f"Cannot write the text tower to {target}: {error.strerror or error}. "
            "Name a folder that can be written with CLIPSEARCH_CACHE."
        ) from error


def remembered(fingerprint: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Array]) -> Array:
    """(Q, D) what `encode` makes of `texts`, which every query needs: kept beside the model's text tower."""
    name = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    path = tower_folder(fingerprint) / f"texts-{name}.npy"
    try:
        return np.asarray(np.load(path), np.float32)
    except (OSError, ValueError):  # not there yet, or cut off
        vectors = encode(texts)
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        np.save(made, vectors)
        made.replace(path)
    return vectors


def map_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file, memory-mapped.

    The library's own numpy reader copies every tensor, which for ViT-B/32 is 150 MB a query. The format: eight bytes
    with the header's length, a JSON header with dtype, shape and byte range of each tensor, the data.
    """
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = data[start + first : start + last].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
