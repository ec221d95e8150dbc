"""Downloads from the Hugging Face hub into its cache: they go on where they stopped, and hashes are compared.

They are made here and not by the library's `snapshot_download`, which (in 2.4) throws away what an interrupted download
had, retries for half a minute before it says that there is no network, and goes on where the disk is too small.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clipsearch.errors import ModelError
from clipsearch.models.catalog import BUNDLED
from clipsearch.models.hub import cache, digest, interrupted, is_hash, is_revision, is_whole_commit, storage
from clipsearch.system.flushing import replace_flushed, sync, sync_folder

CONTACT_SECONDS = 8.0
"""How long the hub has to answer before it counts as unreachable."""
Progress = Callable[[int, int], None]
"""Hears how many bytes there are, and how many there will be."""

_STALLED_SECONDS = 10.0
_ATTEMPTS = 3
"""So often in a row a connection may break before anything new arrives."""
_MB = 1e6
_TOO_MANY, _SERVER_ERROR = 429, 500
"""HTTP: too many requests, and where the server's own errors begin."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Remote:
    """A file on the hub."""

    name: str
    size: int
    etag: str
    """What the cache calls its content: a hash, unless a mirror of the hub has something else."""


def download(
    name: str,
    repository: str,
    needed: Callable[[set[str]], set[str]],
    say: Callable[[str], None],
    *,
    revision: str | None = None,
    progress: Progress = lambda *_: None,
) -> Path:
    """Fetch what is needed of a repository; its snapshot.

    `name` is what the user calls it. `needed` chooses among the names of its files.

    What is on this disk already is not fetched again, and an interrupted download goes on where it stopped. Each file
    is compared with the hash that the hub has for it.

    Raises:
        ModelError: the hub cannot be reached, or has no such model, or the disk is full.
    """
    with _quiet():
        commit, files = _on_hub(name, repository, needed, revision)
        folder = storage(repository)
        snapshot = folder / "snapshots" / commit
        missing = [file for file in files if not (snapshot / file.name).exists()]
        if missing:
            _check_space(name, folder, missing)
            say(
                f"Downloading model {name!r} ({repository}, {sum(file.size for file in missing) / _MB:,.0f} MB) "
                "from the Hugging Face hub ..."
            )
        try:
            snapshot.mkdir(parents=True, exist_ok=True)
            _Download(name, repository, commit, missing, progress).run()
            # At the end: until all is there, the branch stays what it was on this disk.
            if not commit.startswith(revision or "main"):
                _write_ref(folder / "refs" / (revision or "main"), commit)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ModelError(f"The disk is full: {folder} has no room for model {name!r}.") from error
            raise ModelError(f"Model {name!r} cannot be written to {folder}: {error.strerror or error}.") from error
    return snapshot


class _Download:
    """Some files of one commit on their way into the cache."""

    def __init__(self, name: str, repository: str, commit: str, files: list[_Remote], progress: Progress) -> None:
        self._name, self._repository, self._commit = name, repository, commit
        self._blobs = storage(repository) / "blobs"
        self._snapshot = storage(repository) / "snapshots" / commit
        self._files = files
        self._progress = progress
        self._total = sum(file.size for file in files)
        self._before = 0
        """Bytes of the files that are done."""

    def run(self) -> None:
        self._blobs.mkdir(parents=True, exist_ok=True)
        for file in self._files:
            blob = self._blobs / file.etag
            with _alone(self._repository, file.etag):
                if not blob.exists():
                    self._fetch_whole(file, blob)
                _link(self._snapshot / file.name, blob)
            self._before += file.size
            self._progress(self._before, self._total)

    def _fetch_whole(self, file: _Remote, blob: Path) -> None:
        """Fetch a file; once more from its beginning if it is not what the hub has."""
        part = blob.with_name(f"{blob.name}.incomplete")
        for _ in range(2):
            self._fetch(file, part)
            if not is_hash(file.etag) or digest(part, file.etag) == file.etag:
                os.replace(part, blob)
                sync_folder(blob.parent)
                return
            part.unlink()
        raise ModelError(
            f"{file.name} of model {self._name!r} arrived damaged twice: its hash is not the one that the hub has. "
            "Something between the hub and this machine changes it; try another network."
        )

    def _fetch(self, file: _Remote, part: Path) -> None:
        """Go on with a file where it stopped, also after the connection breaks."""
        attempts = 0
        with part.open("r+b" if part.exists() else "w+b") as out:
            done = out.seek(0, os.SEEK_END)
            while done < file.size:
                begun = done
                try:
                    for position, piece in self._pieces(file, begun):
                        out.seek(position)
                        out.write(piece)
                        done = position + len(piece)
                        self._progress(self._before + min(done, file.size), self._total)
                    reason = "the connection was closed"
                except _BrokenError as error:
                    reason = str(error)
                attempts = 1 if done > begun else attempts + 1
                if done < file.size:
                    if attempts >= _ATTEMPTS:
                        raise ModelError(self._stopped(done, reason))
                    time.sleep(1)
            out.truncate(done)
            out.flush()
            sync(out.fileno())

    def _pieces(self, file: _Remote, start: int) -> Iterator[tuple[int, bytes]]:
        """Pieces of a file from `start` on, and where each belongs.

        Raises:
            _BrokenError: the connection broke, or the server is busy.
            ModelError: the hub refuses.
        """
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not for mypy
            build_hf_headers,
            hf_raise_for_status,
        )

        url = hf_hub_url(self._repository, file.name, revision=self._commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            with get_session().stream(
                "GET", url, headers=headers, timeout=_STALLED_SECONDS, follow_redirects=True
            ) as response:
                hf_raise_for_status(response)
                position = start if response.status_code == 206 else 0  # noqa: PLR2004  (Partial Content)
                for piece in response.iter_raw():
                    yield position, piece
                    position += len(piece)
        except HfHubHTTPError as error:
            if error.response.status_code >= _SERVER_ERROR or error.response.status_code == _TOO_MANY:
                raise _BrokenError(_first_line(error)) from error
            raise _refused(self._name, self._repository, None, error) from error
        except Exception as error:  # the HTTP libraries below share no base class; any failure means this
            raise _BrokenError(_first_line(error)) from error

    def _stopped(self, done: int, reason: str) -> str:
        arrived = (self._before + done) / _MB
        return (
            f"The download of model {self._name!r} stopped after {arrived:,.1f} of {self._total / _MB:,.1f} MB: "
            f"{reason}. To go on from there: clipsearch models pull {self._name}"
        )


class _BrokenError(Exception):
    """A connection ended before its time."""


def _on_hub(
    name: str, repository: str, needed: Callable[[set[str]], set[str]], revision: str | None
) -> tuple[str, list[_Remote]]:
    """The commit that a revision is now, and the files of it that are needed; the hub has `CONTACT_SECONDS`."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    def ask() -> tuple[str, list[_Remote]]:
        info = HfApi().model_info(repository, revision=revision, timeout=CONTACT_SECONDS, files_metadata=True)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        files = []
        for file in sorted(needed(set(siblings))):
            sibling = siblings[file]
            if sibling.lfs is not None:
                files.append(_Remote(file, sibling.lfs.size, sibling.lfs.sha256))
            elif sibling.blob_id is not None and sibling.size is not None:
                files.append(_Remote(file, sibling.size, sibling.blob_id))
            else:
                files.append(_described(repository, info.sha or "", file))
        return info.sha or "", files

    try:
        commit, files = _within(CONTACT_SECONDS, ask)
    except OfflineModeIsEnabled as error:
        raise ModelError(_unreachable(name, repository, "HF_HUB_OFFLINE is set")) from error
    except HfHubHTTPError as error:
        raise _refused(name, repository, revision, error) from error
    except Exception as error:  # the HTTP libraries below share no base class; any failure means this
        raise ModelError(_unreachable(name, repository, _first_line(error))) from error
    if not is_whole_commit(commit) or any(not is_revision(file.etag) or "/" in file.etag for file in files):
        raise ModelError(_unreachable(name, repository, "what answers is not like the Hugging Face hub"))
    if not files:
        raise ModelError(
            f"{repository} on the Hugging Face hub holds no model that can be loaded: no weights in safetensors, "
            "and no PyTorch's beside a config.json. Other checkpoints are pickles, which may run any code and are not "
            "loaded. See what works: clipsearch models"
        )
    return commit, files


def _described(repository: str, commit: str, file: str) -> _Remote:
    """A file as its own address describes it, for mirrors of the hub whose lists have names only."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    found = get_hf_file_metadata(hf_hub_url(repository, file, revision=commit), timeout=CONTACT_SECONDS)
    if found.size is None or found.etag is None:
        raise ValueError(f"the server does not say how large {file} is")
    return _Remote(file, found.size, found.etag)


def _check_space(name: str, folder: Path, files: list[_Remote]) -> None:
    """Raise ModelError where the disk is too small for what is missing of `files`."""
    there = sum(part.stat().st_size for file in files for part in (folder / "blobs").glob(f"{file.etag}*"))
    needed = sum(file.size for file in files) - there
    disk = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise ModelError(
            f"Model {name!r} needs {needed / _MB:,.0f} MB more and {disk} has {free / _MB:,.0f} MB free. Make room, or "
            "name a folder on another disk: HF_HOME=DIR"
        )


def _link(pointer: Path, blob: Path) -> None:
    """Let a snapshot have a file. Where the file system has no links, the snapshot gets the file itself."""
    pointer.unlink(missing_ok=True)  # a link to a file that was removed
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        os.replace(blob, pointer)
    sync_folder(pointer.parent)


def _write_ref(path: Path, commit: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_flushed(path, commit.encode("ascii"))


@contextmanager
def _alone(repository: str, etag: str) -> Iterator[None]:
    """Within: no other program that heeds the library's locks downloads the same file."""
    from filelock import FileLock

    folder = cache() / ".locks" / storage(repository).name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{etag}.lock"):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without huggingface_hub's own talk: what matters is raised as an error."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import huggingface_hub.utils.logging  # noqa: F401  (it sets the level when it is imported)

        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


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


# -- what is said when it fails ----------------------------------------------------------------------------------


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _refused(name: str, repository: str, revision: str | None, error: Exception) -> ModelError:
    """The error for an answer of the hub that is none of what was asked for."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repository} asks for permission: accept its terms on the hub and set HF_TOKEN, then run: "
            f"clipsearch models pull {name}"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(
            f"{repository} has no revision {revision!r} on the Hugging Face hub. Take a branch, a tag or a commit hash "
            f"of it, or leave it away: {name.partition('@')[0]}"
        )
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, RepositoryNotFoundError) or status == 401:  # noqa: PLR2004  (so it hides what is private)
        return ModelError(
            f"The Hugging Face hub knows no model {repository!r} (or it is private and HF_TOKEN is not set). "
            "Check the spelling of --model, or see what there is: clipsearch models"
        )
    if status == 403:  # noqa: PLR2004  (Forbidden)
        return ModelError(
            f"The Hugging Face hub refuses {repository} (403). Set HF_TOKEN to a valid token that may read it."
        )
    if status >= _SERVER_ERROR:
        return ModelError(_unreachable(name, repository, f"it answers with an error of its own ({status})"))
    return ModelError(_unreachable(name, repository, _first_line(error)))


def _unreachable(name: str, repository: str, reason: str) -> str:
    state = "only partly on this disk (a download was interrupted)" if interrupted(repository) else "not on this disk"
    return (
        f"Model {name!r} ({repository}) is {state}, and the Hugging Face hub cannot be reached: {reason}.\n"
        "Three ways out:\n"
        f"  1. Connect to the network and run: clipsearch models pull {name}\n"
        f"  2. Copy the folder of {repository} from another machine and name it: --model PATH\n"
        "  3. Try clipsearch without any download, on the sample pictures: "
        f"clipsearch index sample-images --model {BUNDLED}"
    )
