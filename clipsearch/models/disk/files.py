"""Where the files of a model are, and whether they are complete. Imports no model library.

A model that is on this disk is used without a network call; one that is not is downloaded from the hub.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clipsearch.errors import ModelError
from clipsearch.models.disk import hub
from clipsearch.models.disk.catalog import BUNDLED
from clipsearch.models.disk.downloading import download
from clipsearch.models.disk.integrity import damage, read_header
from clipsearch.models.disk.limits import wrong_with
from clipsearch.models.disk.names import HubName, canonical, folder_of, hub_name, refuse_file, unknown
from clipsearch.models.disk.open_clip import CONFIG as OPEN_CLIP_CONFIG
from clipsearch.models.disk.open_clip import WEIGHTS as OPEN_CLIP_WEIGHTS
from clipsearch.models.disk.open_clip import Checkpoint
from clipsearch.system.progress import SILENT, Progress

_log = logging.getLogger(__name__)
Layout = Literal["transformers", "open_clip"]

FAMILIES = frozenset(
    {
        *("altclip", "chinese_clip", "clip", "clipseg", "groupvit", "metaclip_2"),
        *("siglip", "siglip2", "vision-text-dual-encoder"),
    }
)
"""Supported values of `model_type` in config.json: dual encoders that transformers has code for."""
TEXT_FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
)
"""Files of a model besides its weights."""
PIECES = ("spiece.model", "sentencepiece.bpe.model", "vocab.txt")
"""Files of the tokenizers of SigLIP, XLM-R and BERT, which are read if there is no tokenizer.json."""
_CONFIGURATIONS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"

_BUNDLED_FOLDER = Path(__file__).resolve().parents[2] / "data" / BUNDLED
_TOKENIZERS = ("tokenizer.json", "vocab.json", *PIECES)


@dataclass(frozen=True)
class ModelFiles:
    """A model that is on this disk."""

    name: str
    """Name of the model, as the user would type it."""
    folder: Path
    revision: str | None
    """Commit hash of a model from the hub; None for others."""
    layout: Layout = "transformers"
    """Library whose file names and configuration it has."""


@dataclass(frozen=True)
class FileCheck:
    """Result of a full check of one file."""

    name: str
    bytes: int
    whole: bool | None
    """Whether its content has the hash that the hub had; None if no hash is known."""


def locate(name: str, *, revision: str | None = None, progress: Progress = SILENT) -> ModelFiles:
    """Return the files of a model, downloaded if they are not on this disk.

    Args:
        name: A short name, a folder, a repository on the hub (owner/name or hf-hub:owner/name) or open_clip's name for
            one (ViT-B-32/laion2b_s34b_b79k), each of the last three also with a revision: NAME@REVISION.
        revision: Commit that is preferred to what the name means now, such as the one that an index was made with.
        progress: Told how much of a download is there.

    Raises:
        ModelError: there is no such model, it cannot be reached, or its files are incomplete or damaged.
    """
    files = find_local(name, revision=revision)
    if files is None:
        on_hub, pinned = _on_hub(canonical(name), revision)
        files = _download(pinned or on_hub, progress)
        if pinned:
            files = replace(files, name=canonical(name))
    return _checked(files)


def find_local(name: str, *, revision: str | None = None) -> ModelFiles | None:
    """Return the files of a model if they are all on this disk, without reading them. Arguments as for `locate`.

    Raises:
        ModelError: no model can have this name.
    """
    name = canonical(name)
    folder = _BUNDLED_FOLDER if name == BUNDLED else folder_of(name)
    if folder is not None:
        return _with_layout(ModelFiles(name, folder, None))
    on_hub, pinned = _on_hub(name, revision)
    files = (_local(pinned) if pinned else None) or _local(on_hub)
    return replace(files, name=name) if files and pinned else files


def _on_hub(name: str, revision: str | None) -> tuple[HubName, HubName | None]:
    """Return a model's name on the hub, and the same at the commit that is preferred, if there is one."""
    refuse_file(name)
    on_hub = hub_name(name)
    if on_hub is None:
        raise ModelError(unknown(name))
    is_pinned = revision is not None and hub.is_commit(revision)
    return on_hub, replace(on_hub, revision=revision) if is_pinned else None


@dataclass(frozen=True)
class Pulled:
    """Result of `pull`."""

    files: ModelFiles
    fetched: bool
    """Whether anything was missing, damaged or out of date."""
    checks: list[FileCheck]


def pull(name: str, *, update: bool = False, progress: Progress = SILENT) -> Pulled:
    """Bring a whole model to this disk.

    Files on the disk are compared with the hub's hashes, and damaged ones are downloaded again. The hub is asked only
    if a file is missing, or with `update`, which also takes a newer commit.

    Raises:
        ModelError: there is no such model, or it cannot be reached or written, or its files make no model.
    """
    name = canonical(name)
    on_hub = None if name == BUNDLED or folder_of(name) else hub_name(name)
    if on_hub is None:
        files = locate(name)
        return Pulled(files, fetched=False, checks=verify(files))
    damaged = _remove_damaged(hub.on_disk(on_hub.repository, on_hub.revision))
    before = _local(on_hub)
    if before and not update:
        return Pulled(_checked(before), fetched=False, checks=verify(before))
    files = _checked(_download(on_hub, progress))
    fetched = damaged or before is None or before.folder != files.folder
    return Pulled(files, fetched=fetched, checks=verify(files))


def _remove_damaged(snapshot: Path | None) -> bool:
    """Remove damaged files from a snapshot, so that they are downloaded again; return whether there were any."""
    if snapshot is None:
        return False
    found = False
    names = {path.name for path in snapshot.iterdir()}
    for name in sorted(needed(names) or needed({*names, SAFE, "config.json"})):  # also if the weights are missing
        path = snapshot / name
        if path.is_file() and not _is_whole(path):
            _log.warning("%s is damaged and has to be fetched again.", path.name)
            hub.remove(path)
            found = True
    return found


def _is_whole(path: Path) -> bool:
    """Whether a file of the hub's cache has the hub's hash or, where no hash is known, has a valid header."""
    if hub.is_blob(path):
        return hub.blob_is_whole(path)
    try:
        return _wrong(path) is None
    except ModelError:
        return False


def _local(on_hub: HubName) -> ModelFiles | None:
    """Return the files of a model in the hub's cache if none is missing, without reading them."""
    folder = hub.on_disk(on_hub.repository, on_hub.revision)
    if folder is None:
        return None
    files = _with_layout(ModelFiles(on_hub.whole, folder, folder.name))
    return None if _missing(files) else files


def _download(on_hub: HubName, progress: Progress) -> ModelFiles:
    folder = download(on_hub.whole, on_hub.repository, needed, revision=on_hub.revision, progress=progress)
    return _with_layout(ModelFiles(on_hub.whole, folder, folder.name))


# -- files of a folder -------------------------------------------------------------------------------------------


def layout_of(folder: Path) -> Layout:
    """Return the library whose file names a folder has: transformers if it has its configuration and weights."""
    if (folder / "config.json").is_file() and _has_weights(folder):
        return "transformers"
    return "open_clip" if (folder / OPEN_CLIP_CONFIG).is_file() else "transformers"


def _with_layout(files: ModelFiles) -> ModelFiles:
    return replace(files, layout=layout_of(files.folder))


def _has_weights(folder: Path) -> bool:
    return any((folder / f"{name}{index}").exists() for name in (SAFE, PICKLED) for index in ("", ".index.json"))


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read config.json or another JSON file of a model.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    path = folder / name
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise hub.incomplete(folder, f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise hub.incomplete(folder, f"{path} is no JSON object.")
    return config


def family(files: ModelFiles) -> str:
    """Return the `model_type` of a model; a checkpoint of open_clip is a "clip"."""
    return "clip" if files.layout == "open_clip" else str(read_config(files.folder).get("model_type"))


def weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights: safetensors if there are any, else PyTorch's; or open_clip's.

    The list is empty if any is missing.

    Raises:
        ModelError: the index of the shards cannot be read.
    """
    if layout_of(folder) == "open_clip":
        return [folder / OPEN_CLIP_WEIGHTS] if (folder / OPEN_CLIP_WEIGHTS).is_file() else []
    for name in (SAFE, PICKLED):
        if (folder / name).is_file():
            return [folder / name]
        shards = _shards(folder, f"{name}.index.json")
        if shards and all(shard.is_file() for shard in shards):
            return shards
    return []


def _shards(folder: Path, index: str) -> list[Path]:
    """Return the shards that an index of weights names, whether they exist or not."""
    if not (folder / index).is_file():
        return []
    named = read_config(folder, index).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) else set()
    if not names or any(not isinstance(name, str) or os.path.basename(name) != name for name in names):
        raise hub.incomplete(folder, f"{folder / index} does not say where the weights are.")
    return [folder / name for name in sorted(names)]


def text_files(folder: Path) -> list[Path]:
    """Return the files that decide a model's vectors, without the weights, in a fixed order."""
    names = [*TEXT_FILES]
    if layout_of(folder) == "open_clip":
        names.append(OPEN_CLIP_CONFIG)
    if not (folder / "tokenizer.json").is_file():
        names += PIECES
    return [folder / name for name in names if (folder / name).is_file()]


def model_paths(folder: Path) -> list[Path]:
    """Return all files that a model is loaded from, in a fixed order."""
    return [*text_files(folder), *weight_files(folder)]


def fingerprint(folder: Path) -> str:
    """Hash everything that decides a model's vectors: weights, configuration, tokenizer, preprocessing."""
    digest = hashlib.blake2b(digest_size=16)
    for path in model_paths(folder):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def needed(names: set[str]) -> set[str]:
    """Select the files of a repository that a model is loaded from: safetensors and transformers' if possible.

    The set is empty if there are no weights that can be loaded.
    """
    wanted = {*TEXT_FILES, *PIECES, OPEN_CLIP_CONFIG}
    for weights in (SAFE, OPEN_CLIP_WEIGHTS, PICKLED):
        stem, _, ending = weights.rpartition(".")
        shard = re.compile(rf"{stem}-\d+-of-\d+[.]{ending}")
        single = {weights} & names
        shards = {name for name in names if shard.fullmatch(name) or name == f"{weights}.index.json"}
        if (single or shards) and (weights == OPEN_CLIP_WEIGHTS or "config.json" in names):
            return (wanted | (single or shards)) & names
    return set()


# -- checks ------------------------------------------------------------------------------------------------------


def verify(files: ModelFiles) -> list[FileCheck]:
    """Compare each file of a model in the hub's cache with the hash that it is named after. Reads all files."""
    checks = []
    for path in model_paths(files.folder):
        whole = hub.blob_is_whole(path) if hub.is_blob(path) else None
        checks.append(FileCheck(path.name, path.stat().st_size, whole))
    return checks


def check(files: ModelFiles) -> None:
    """Check that all files of a model exist, are of a known kind, and have the right length. Reads no weights.

    Raises:
        ModelError: a file is missing, damaged or of an unknown kind.
    """
    if missing := _missing(files):
        raise missing
    for path in model_paths(files.folder):
        if wrong := _wrong(path):
            raise hub.incomplete(files.folder, wrong)
    if files.layout == "open_clip":
        read_config(files.folder, OPEN_CLIP_CONFIG)
        return
    if family(files) not in FAMILIES:
        raise ModelError(
            f"{files.folder} holds a model of type {family(files)}; clipsearch reads models that know pictures and "
            f"words: {', '.join(sorted(FAMILIES))}.",
            hint="known-models",
        )


def check_architecture(files: ModelFiles) -> None:
    """Check that a model can be built. Reads only the headers of the weights.

    Raises:
        ModelError: its configuration is absurd, or does not fit its weights or its preprocessing.
    """
    names = (OPEN_CLIP_CONFIG,) if files.layout == "open_clip" else _CONFIGURATIONS
    weights = weight_files(files.folder)
    if wrong := wrong_with(files.folder, names, weights):
        raise hub.incomplete(files.folder, wrong)
    if files.layout == "open_clip":
        Checkpoint.load(files.folder).check(read_header(weights[0]))


def _checked(files: ModelFiles) -> ModelFiles:
    """Return `files` with their layout after `check` and `check_architecture`."""
    files = _with_layout(files)
    check(files)
    check_architecture(files)
    return files


def _missing(files: ModelFiles) -> ModelError | None:
    """Return the error for a missing file; None if none is missing."""
    folder = files.folder
    if files.layout == "open_clip":
        if (folder / OPEN_CLIP_WEIGHTS).is_file():
            return None
        pickles = [name for name in ("open_clip_pytorch_model.bin", "open_clip_model.pt") if (folder / name).exists()]
        reason = f" {pickles[0]} is a pickle, which may run any code and is not loaded." if pickles else ""
        return ModelError(
            f"{folder} holds no weights: {OPEN_CLIP_WEIGHTS} is missing.{reason} Get the one with safetensors."
        )
    if not (folder / "config.json").is_file():
        return ModelError(f"{folder} holds no model: config.json is missing. Name the folder of a CLIP model.")
    if not weight_files(folder):
        shards = [shard for name in (SAFE, PICKLED) for shard in _shards(folder, f"{name}.index.json")]
        absent = next((shard.name for shard in shards if not shard.is_file()), f"{SAFE} (or {PICKLED})")
        return hub.incomplete(folder, f"{folder} holds no weights: {absent} is missing.")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        # transformers would go on with an empty tokenizer.
        pieces = ", ".join(PIECES)
        return hub.incomplete(
            folder,
            f"{folder} holds no tokenizer: tokenizer.json (or vocab.json and merges.txt, or {pieces}) is missing.",
        )
    return None


def _wrong(path: Path) -> str | None:
    """Return what is wrong with a file, as far as its header and length show; None if nothing is.

    Raises:
        ModelError: it is JSON that cannot be read.
    """
    found = damage(path)
    if found is None and path.suffix == ".json":
        read_config(path.parent, path.name)
    return found
