"""Names of models, where their files lie, and how missing ones are fetched. Imports no model library.

A model that is on disk is used without one network call. One that is not is looked for on the Hugging Face hub, with
a deadline: transformers and huggingface_hub would retry for half a minute before they say that there is no network.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path

from clipsearch.errors import ModelError

DEFAULT = "laion"
BUNDLED = "picturebook"
REPOSITORIES = {
    "laion": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "openai": "openai/clip-vit-base-patch32",
}
"""Short names of models on the hub."""
PICTUREBOOK_NOTE = (
    "picturebook understands picture-book drawings only and says nothing useful about photographs. "
    "For those use the default model, or --model openai."
)
CONTACT_SECONDS = 8.0
"""How long the hub has to answer before it counts as unreachable."""

_BUNDLED_FOLDER = Path(__file__).resolve().parent.parent / "data" / BUNDLED
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_TEXT_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_T = TypeVar("_T")


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
            f"{files.folder} holds no weights: {_SAFE} (or {_PICKLED}) is missing. Copy the whole model folder."
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
    for name in (_SAFE, _PICKLED):
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
    for path in [*(folder / name for name in _TEXT_FILES), *weight_files(folder)]:
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()


# -- the hub -------------------------------------------------------------------------------------------------


def _from_hub(name: str, repository: str, say: Callable[[str], None]) -> ModelFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        on_disk = Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        on_disk = None
    if on_disk and (on_disk / "config.json").is_file() and weight_files(on_disk):
        return ModelFiles(name, on_disk, on_disk.name)
    wanted = _files_on_hub(name, repository)
    say(f"Downloading model {name!r} ({repository}) from the Hugging Face hub ...")
    try:
        folder = Path(snapshot_download(repository, allow_patterns=wanted))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ModelError(_unreachable(name, repository, _first_line(error))) from error
    return ModelFiles(name, folder, folder.name)


def _files_on_hub(name: str, repository: str) -> list[str]:
    """Which files of the repository are needed; asks the hub, within `CONTACT_SECONDS`."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        info = _within(CONTACT_SECONDS, lambda: HfApi().model_info(repository, timeout=CONTACT_SECONDS))
    except GatedRepoError as error:
        raise ModelError(f"{repository} asks for permission: accept its terms on the hub and set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hugging Face hub knows no model {repository!r} (or it is private and HF_TOKEN is not set). "
            "Check the spelling of --model."
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(_unreachable(name, repository, "HF_HUB_OFFLINE is set")) from error
    except Exception as error:  # the HTTP libraries below share no base class; any failure means this
        raise ModelError(_unreachable(name, repository, _first_line(error))) from error
    names = {sibling.rfilename for sibling in info.siblings or []}
    weights = [n for n in names if n.startswith("model") and n.endswith((".safetensors", ".safetensors.index.json"))]
    return [*_TEXT_FILES, *(weights or [_PICKLED, f"{_PICKLED}.index.json", "pytorch_model-*.bin"])]


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """The result of `work`, or `TimeoutError`. Name look-ups have no time limit of their own, hence the thread."""
    results: list[_T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return results[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unreachable(name: str, repository: str, reason: str) -> str:
    return (
        f"Model {name!r} ({repository}) is not on this disk, and the Hugging Face hub cannot be reached: {reason}\n"
        "Three ways out:\n"
        "  1. Connect to the network and run the same command again; the model is downloaded once.\n"
        f"  2. Copy the folder of {repository} from another machine and name it: --model PATH\n"
        "  3. Try clipsearch without any download, on the sample pictures: "
        f"clipsearch index sample-images --model {BUNDLED}"
    )
