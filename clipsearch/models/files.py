"""Where the files of a model lie, and whether they are whole. Imports no model library.

A model that is on this disk is used without one network call; `hub` is asked for one that is not.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from clipsearch.errors import ModelError
from clipsearch.models.catalog import BUNDLED, REPOSITORIES
from clipsearch.models.hub import PICKLED, SAFE, TEXT_FILES, download, on_disk

_BUNDLED_FOLDER = Path(__file__).resolve().parent.parent / "data" / BUNDLED
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelFiles:
    """A model that is on this disk."""

    name: str
    """As the user would type it."""
    folder: Path
    revision: str | None
    """Commit hash for a model from the hub."""


def cache_folder() -> Path:
    """Where clipsearch keeps what can be made again (`CLIPSEARCH_CACHE`, else the system's cache folder)."""
    given = os.environ.get("CLIPSEARCH_CACHE")
    return Path(given) if given else user_cache_path("clipsearch", appauthor=False)


def canonical(name: str) -> str:
    """The one way to write a model's name: its short name, the absolute path of its folder, or its repository."""
    for short, repository in REPOSITORIES.items():
        if name in (short, repository):
            return short
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != BUNDLED and folder.is_dir() else name


def locate(name: str, say: Callable[[str], None] = lambda _: None) -> ModelFiles:
    """The files of model `name`: a short name, a folder, or a repository on the hub; fetched if need be.

    `say` hears what takes long.

    Raises:
        ModelError: there is no such model, it cannot be reached, or its files are incomplete.
    """
    name = canonical(name)
    if name == BUNDLED:
        return _checked(ModelFiles(name, _BUNDLED_FOLDER, None))
    if name in REPOSITORIES:
        return _checked(_from_hub(name, REPOSITORIES[name], say))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(ModelFiles(name, folder, None))
    if folder.exists():
        raise ModelError(f"{name} is a file. --model wants the folder that holds config.json and the weights.")
    if _REPOSITORY.fullmatch(name) and not name.startswith("."):
        return _checked(_from_hub(name, name, say))
    raise ModelError(_unknown(name))


def _unknown(name: str) -> str:
    names = [*REPOSITORIES, BUNDLED]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"Unknown model {name!r}.{hint} Known names: {', '.join(names)}. "
        "A folder (--model ./my-clip) or a repository on the Hugging Face hub (--model owner/name) works too."
    )


def _checked(files: ModelFiles) -> ModelFiles:
    """`files` if they look whole."""
    if not (files.folder / "config.json").is_file():
        raise ModelError(f"{files.folder} holds no model: config.json is missing. Name the folder of a CLIP model.")
    kind = read_config(files.folder).get("model_type")
    if kind != "clip":
        raise ModelError(f"{files.folder} holds a model of type {kind!r}; clipsearch reads CLIP models ('clip').")
    if not weight_files(files.folder):
        raise ModelError(
            f"{files.folder} holds no weights: {SAFE} (or {PICKLED}) is missing. Copy the whole model folder."
        )
    if not any((files.folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would go on with a tokenizer that knows no words.
        raise ModelError(
            f"{files.folder} holds no tokenizer: tokenizer.json (or vocab.json and merges.txt) is missing. "
            "Copy the whole model folder."
        )
    return files


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy the model folder again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no JSON object. Copy the model folder again.")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors if there are any, else PyTorch's."""
    for name in (SAFE, PICKLED):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            if all((folder / shard).is_file() for shard in shards):
                return [folder / shard for shard in shards]
    return []


def fingerprint(folder: Path) -> str:
    """A hash of everything that decides a model's vectors: weights, configuration, tokenizer, preprocessing."""
    digest = hashlib.blake2b(digest_size=16)
    for path in [*(folder / name for name in TEXT_FILES), *weight_files(folder)]:
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()


def _from_hub(name: str, repository: str, say: Callable[[str], None]) -> ModelFiles:
    folder = on_disk(repository)
    if folder is None or not (folder / "config.json").is_file() or not weight_files(folder):
        folder = download(name, repository, say)
    return ModelFiles(name, folder, folder.name)
