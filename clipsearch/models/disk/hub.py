"""The Hugging Face hub's cache on this disk: what is there is found without the network.

Its layout is documented (https://huggingface.co/docs/huggingface_hub/guides/manage-cache) and shared with other
programs. `downloading` puts into it what is missing.
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
"""Names of branches and tags as Git has them, and nothing that leads out of a folder."""


def cache() -> Path:
    """Where the hub's models lie: as `HF_HUB_CACHE`, `HF_HOME` and the library's other settings say."""
    from huggingface_hub import constants

    return below_home(Path(constants.HF_HUB_CACHE))


def storage(repository: str) -> Path:
    """The folder of a repository in the hub's cache, whether it is there or not."""
    return cache() / f"models--{repository.replace('/', '--')}"


def on_disk(repository: str, revision: str | None = None) -> Path | None:
    """The snapshot of a repository in the hub's cache, whole or not; found without the network.

    `revision` is a branch, a tag, or a commit hash, of which the beginning is enough; by default the branch main.
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
    """Whether this may be the name of a branch or a tag, or a commit hash."""
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def is_commit(revision: str) -> bool:
    """Whether this may be a commit hash, or the beginning of one."""
    return bool(_ABBREVIATED.fullmatch(revision))


def is_whole_commit(revision: str) -> bool:
    """Whether this may be a commit hash with nothing left out."""
    return bool(_COMMIT.fullmatch(revision))


def interrupted(repository: str) -> bool:
    """Whether a download of this repository was begun and not ended."""
    return any((storage(repository) / "blobs").glob("*.incomplete"))


def is_blob(path: Path) -> bool:
    """Whether a file belongs to the hub's cache and is named there after its content."""
    blob = _blob(path)
    return blob.parent.name == "blobs" and is_hash(blob.name)


def blob_is_whole(path: Path) -> bool:
    """Whether a file of the hub's cache has the content that it is named after; reads all of it."""
    blob = _blob(path)
    return digest(blob, blob.name) == blob.name


def _blob(path: Path) -> Path:
    """What a link in a snapshot stands for. It may be a link, too, to a store that all repositories share."""
    for _ in range(8):
        if path.parent.name == "blobs" or not path.is_symlink():
            break
        path = path.parent.resolve() / path.readlink()
    return path


def remove(path: Path) -> None:
    """Take a damaged file out of the hub's cache."""
    for one in (path.resolve(), _blob(path), path):
        one.unlink(missing_ok=True)


def is_hash(name: str) -> bool:
    """Whether a name can be that of a content: SHA-256, or Git's own SHA-1."""
    return len(name) in (40, 64) and set(name) <= set("0123456789abcdef")


def digest(path: Path, like: str) -> str:
    """The hash of a file, of the kind of `like`: SHA-256 as Git LFS has it, or Git's own for small files."""
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
