"""Where the files of a model lie, and whether they are whole. Imports no model library.

A model that is on this disk is used without one network call; `hub` is asked for one that is not.
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
from clipsearch.models.disk.catalog import BUNDLED, find
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
"""What `model_type` in config.json may say: dual encoders that transformers has code of its own for."""
TEXT_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
"""What a model's folder has beside its weights."""
PIECES = ("spiece.model", "sentencepiece.bpe.model", "vocab.txt")
"""Tokenizers of SigLIP, XLM-R and BERT, where they are not written as tokenizer.json too."""
_CONFIGURATIONS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"

_BUNDLED_FOLDER = Path(__file__).resolve().parents[2] / "data" / BUNDLED
_TOKENIZERS = ("tokenizer.json", "vocab.json", *PIECES)


@dataclass(frozen=True)
class ModelFiles:
    """A model that is on this disk."""

    name: str
    """As the user would type it."""
    folder: Path
    revision: str | None
    """Commit hash for a model from the hub."""
    layout: Layout = "transformers"
    """Whose names and configuration the files have."""


@dataclass(frozen=True)
class FileCheck:
    """What a full check says of one file."""

    name: str
    bytes: int
    whole: bool | None
    """Whether its content is the one that the hub had; None where nobody wrote down what that is."""


def locate(
    name: str,
    *,
    revision: str | None = None,
    progress: Progress = SILENT,
) -> ModelFiles:
    """The files of model `name`, fetched if need be.

    That is a short name, a folder, a repository on the hub (owner/name or hf-hub:owner/name) or open_clip's name for
    one (ViT-B-32/laion2b_s34b_b79k), each of the last three also with a revision: NAME@REVISION. `revision` is a commit
    to be preferred to what the name means now, such as the one that an index was made with. `progress` is told
    how much of a download is there.

    Raises:
        ModelError: there is no such model, it cannot be reached, or its files are incomplete or damaged.
    """
    name = canonical(name)
    if name == BUNDLED:
        return _checked(ModelFiles(name, _BUNDLED_FOLDER, None))
    if (folder := folder_of(name)) is not None:
        return _checked(ModelFiles(name, folder, None))
    refuse_file(name)
    on_hub = hub_name(name)
    if on_hub is None:
        raise ModelError(unknown(name))
    pinned = _pinned(on_hub, revision)
    if pinned is None:
        return _checked(_from_hub(on_hub, progress))
    files = _local(pinned) or _local(on_hub) or _from_hub(pinned, progress)
    return _checked(replace(files, name=name))


def find_local(name: str, *, revision: str | None = None) -> ModelFiles | None:
    """The files of model `name` if they are all on this disk; their content is not looked at.

    `revision` is as for `locate`.

    Raises:
        ModelError: there can be no such model.
    """
    name = canonical(name)
    folder = _BUNDLED_FOLDER if name == BUNDLED else folder_of(name)
    if folder is not None:
        return _with_layout(ModelFiles(name, folder, None))
    refuse_file(name)
    on_hub = hub_name(name)
    if on_hub is None:
        raise ModelError(unknown(name))
    pinned = _pinned(on_hub, revision)
    files = (_local(pinned) if pinned else None) or _local(on_hub)
    return replace(files, name=name) if files and pinned else files


def _pinned(on_hub: HubName, revision: str | None) -> HubName | None:
    """A name with a commit that is to be preferred; None if there is none."""
    return replace(on_hub, revision=revision) if revision is not None and hub.is_commit(revision) else None


@dataclass(frozen=True)
class Pulled:
    """What `pull` did."""

    files: ModelFiles
    fetched: bool
    """Whether anything was missing, damaged or out of date."""
    checks: list[FileCheck]


def pull(
    name: str,
    *,
    update: bool = False,
    progress: Progress = SILENT,
) -> Pulled:
    """Bring a model to this disk, whole.

    What is there is compared with the hub's hashes, and damaged files are fetched again. The hub is asked only if
    something is missing, or with `update`, which also takes what is new.

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
    """Take what is damaged out of a snapshot, so that it is missing and can be fetched again; whether anything was."""
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
    """Whether a file of the hub's cache is what the hub had; where there are no hashes, whether it looks like that."""
    if hub.is_blob(path):
        return hub.blob_is_whole(path)
    try:
        return _wrong(path) is None
    except ModelError:
        return False


def _local(on_hub: HubName) -> ModelFiles | None:
    """What the hub's cache has of a model, if no file is missing; their content is not looked at."""
    folder = hub.on_disk(on_hub.repository, on_hub.revision)
    if folder is None:
        return None
    files = _with_layout(ModelFiles(on_hub.whole, folder, folder.name))
    return None if _missing(files) else files


def _from_hub(on_hub: HubName, progress: Progress) -> ModelFiles:
    return _local(on_hub) or _download(on_hub, progress)


def _download(on_hub: HubName, progress: Progress) -> ModelFiles:
    folder = download(on_hub.whole, on_hub.repository, needed, revision=on_hub.revision, progress=progress)
    return _with_layout(ModelFiles(on_hub.whole, folder, folder.name))


# -- what lies in a folder ---------------------------------------------------------------------------------------


def layout_of(folder: Path) -> Layout:
    """Whose names the files have: transformers' if there is a configuration and weights of it, else open_clip's."""
    if (folder / "config.json").is_file() and _has_weights(folder):
        return "transformers"
    return "open_clip" if (folder / OPEN_CLIP_CONFIG).is_file() else "transformers"


def _with_layout(files: ModelFiles) -> ModelFiles:
    return replace(files, layout=layout_of(files.folder))


def _has_weights(folder: Path) -> bool:
    return any((folder / f"{name}{index}").exists() for name in (SAFE, PICKLED) for index in ("", ".index.json"))


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The model's config.json, or another such file.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    path = folder / name
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise incomplete(folder, f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise incomplete(folder, f"{path} is no JSON object.")
    return config


def family(files: ModelFiles) -> str:
    """What a model's configuration calls its architecture; a checkpoint of open_clip becomes a "clip"."""
    return "clip" if files.layout == "open_clip" else str(read_config(files.folder).get("model_type"))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors if there are any, else PyTorch's; or those of open_clip.

    None if some are missing.

    Raises:
        ModelError: the list of the parts cannot be read.
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
    """The parts that an index of weights names, whether they are there or not."""
    if not (folder / index).is_file():
        return []
    named = read_config(folder, index).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) else set()
    if not names or any(not isinstance(name, str) or os.path.basename(name) != name for name in names):
        raise incomplete(folder, f"{folder / index} does not say where the weights are.")
    return [folder / name for name in sorted(names)]


def text_files(folder: Path) -> list[Path]:
    """What decides a model's vectors beside its weights, as far as it is there, in a fixed order."""
    names = [*TEXT_FILES]
    if layout_of(folder) == "open_clip":
        names.append(OPEN_CLIP_CONFIG)
    if not (folder / "tokenizer.json").is_file():
        names += PIECES
    return [folder / name for name in names if (folder / name).is_file()]


def model_paths(folder: Path) -> list[Path]:
    """All files that a model is loaded from, in a fixed order."""
    return [*text_files(folder), *weight_files(folder)]


def fingerprint(folder: Path) -> str:
    """A hash of everything that decides a model's vectors: weights, configuration, tokenizer, preprocessing."""
    digest = hashlib.blake2b(digest_size=16)
    for path in model_paths(folder):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def needed(names: set[str]) -> set[str]:
    """The files of a repository that a model is loaded from: safetensors if it has any, for transformers if possible.

    None if there are no weights that can be loaded.
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


# -- whether it is whole -----------------------------------------------------------------------------------------


def verify(files: ModelFiles) -> list[FileCheck]:
    """Compare each file of a model that lies in the hub's cache with the hash that it is named after; reads it all."""
    checks = []
    for path in model_paths(files.folder):
        whole = hub.blob_is_whole(path) if hub.is_blob(path) else None
        checks.append(FileCheck(path.name, path.stat().st_size, whole))
    return checks


def check(files: ModelFiles) -> None:
    """See whether a model's files are all there, of a known kind, and as long as they must be. Reads no weights.

    Raises:
        ModelError: they are not.
    """
    if missing := _missing(files):
        raise missing
    for path in model_paths(files.folder):
        if wrong := _wrong(path):
            raise incomplete(files.folder, wrong)
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
    """See whether a model is one that can be built, before anything is. Reads only headers of the weights.

    Raises:
        ModelError: its configuration is absurd, or not that of its weights or its preprocessing.
    """
    names = (OPEN_CLIP_CONFIG,) if files.layout == "open_clip" else _CONFIGURATIONS
    weights = weight_files(files.folder)
    if wrong := wrong_with(files.folder, names, weights):
        raise incomplete(files.folder, wrong)
    if files.layout == "open_clip":
        Checkpoint.load(files.folder).check(read_header(weights[0]))


def _checked(files: ModelFiles) -> ModelFiles:
    """`files` if they look whole."""
    files = _with_layout(files)
    check(files)
    check_architecture(files)
    return files


def _missing(files: ModelFiles) -> ModelError | None:
    """The error for a file that is missing; None if none is."""
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
        return incomplete(folder, f"{folder} holds no weights: {absent} is missing.")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        # transformers would go on with a tokenizer that knows no words.
        pieces = ", ".join(PIECES)
        return incomplete(
            folder,
            f"{folder} holds no tokenizer: tokenizer.json (or vocab.json and merges.txt, or {pieces}) is missing.",
        )
    return None


def _wrong(path: Path) -> str | None:
    """What is wrong with a file, as far as can be seen without reading all of it.

    Raises:
        ModelError: it is JSON that cannot be read.
    """
    found = damage(path)
    if found is None and path.suffix == ".json":
        read_config(path.parent, path.name)
    return found


def incomplete(folder: Path, wrong: str) -> ModelError:
    """The error for a model in `folder` whose files are not whole; `wrong` says in a sentence what is wrong."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        entry = find(repository)
        return ModelError(wrong, hint="pull-again", model=entry.name if entry else repository)
    return ModelError(f"{wrong} Copy the whole model folder again.")
