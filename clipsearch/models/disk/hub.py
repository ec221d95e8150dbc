"""The Hugging Face hub's cache on this disk, in which models are found without the network.

Its layout is documented (https://huggingface.co/docs/huggingface_hub/guides/manage-cache) and shared with other
programs. `downloading` adds what is missing.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from clipsearch.errors import ModelError
from clipsearch.models.disk.catalog import find
from clipsearch.system.places import below_home

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-f]{6,40}")
_REVISION = re.compile(r"[\w][\w.+-]*(/[\w][\w.+-]*)*")
"""Names of branches and tags that Git allows, without those that lead out of a folder."""


def cache() -> Path:
    """Return the folder of the hub's cache, which `HF_HUB_CACHE`, `HF_HOME` and other settings of the library name."""
    from huggingface_hub import constants

    return below_home(Path(constants.HF_HUB_CACHE))


def storage(repository: str) -> Path:
    """Return the folder of a repository in the hub's cache, whether it exists or not."""
    return cache() / f"models--{repository.replace('/', '--')}"


def on_disk(repository: str, revision: str | None = None) -> Path | None:
    """Return the snapshot of a repository in the hub's cache, complete or not, without using the network.

    Args:
        repository: owner/name.
        revision: A branch, a tag, or the beginning of a commit hash; by default the branch main.

    Returns:
        The folder of the snapshot; None if the cache has none, or if several begin with `revision`.
    """
    folder = storage(repository)
    try:
        commit = (folder / "refs" / (revision or "main")).read_text("ascii").strip()
    except (OSError, ValueError):
        commit = revision or ""
    if _COMMIT.fullmatch(commit):
        snapshot = folder / "snapshots" / commit
        return snapshot if snapshot.is_dir() else None
    if not is_commit(commit):
        return None
    found = list((folder / "snapshots").glob(f"{commit}*"))
    return found[0] if len(found) == 1 else None


def is_revision(text: str) -> bool:
    """Return whether `text` can be a branch, a tag or a commit hash."""
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def is_commit(revision: str) -> bool:
    """Return whether `revision` can be a commit hash or the beginning of one."""
    return bool(_ABBREVIATED.fullmatch(revision))


def is_whole_commit(revision: str) -> bool:
    """Return whether `revision` can be a complete commit hash."""
    return bool(_COMMIT.fullmatch(revision))


def interrupted(repository: str) -> bool:
    """Return whether a download of this repository was interrupted."""
    return any((storage(repository) / "blobs").glob("*.incomplete"))


def is_blob(path: Path) -> bool:
    """Return whether a file is a blob of the hub's cache, which is named by the hash of its content."""
    blob = _blob(path)
    return blob.parent.name == "blobs" and is_hash(blob.name)


def blob_is_whole(path: Path) -> bool:
    """Return whether a blob has the hash that is its name; reads the whole file."""
    blob = _blob(path)
    return digest(blob, blob.name) == blob.name


def _blob(path: Path) -> Path:
    """Return the blob that a link in a snapshot points to, which may itself link to a store shared by repositories."""
    for _ in range(8):
        if path.parent.name == "blobs" or not path.is_symlink():
            break
        path = path.parent.resolve() / path.readlink()
    return path


def remove(path: Path) -> None:
    """Remove a damaged file from the hub's cache: the link and what it points to."""
    for one in (path.resolve(), _blob(path), path):
        one.unlink(missing_ok=True)


def is_hash(name: str) -> bool:
    """Return whether a name can be a hash: SHA-256, or Git's SHA-1."""
    return len(name) in (40, 64) and set(name) <= set("0123456789abcdef")


def digest(path: Path, like: str) -> str:
    """Hash a file, by the method that gave the hash `like`: SHA-256 for files in Git LFS, or Git's SHA-1 for others."""
    if len(like) == 64:  # noqa: PLR2004  (hexadecimal digits of SHA-256)
        sha = hashlib.sha256()
    else:
        sha = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()


def incomplete(folder: Path, wrong: str) -> ModelError:
    """Return the error for a model in `folder` with incomplete files; `wrong` is a sentence that says what is wrong."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        entry = find(repository)
        return ModelError(wrong, hint="pull-again", model=entry.name if entry else repository)
    return ModelError(f"{wrong} Copy the whole model folder again.")
