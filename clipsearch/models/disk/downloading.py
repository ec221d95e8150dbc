"""Downloads from the Hugging Face hub into its cache, by the hub's own library.

This module adds: the choice of files, an answer within `CONTACT_SECONDS` if there is no network, a check of the free
space before the download, a comparison with the hub's hashes afterwards, and one-line errors.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clipsearch.errors import ModelError
from clipsearch.models.disk import hub
from clipsearch.system.flushing import replace_flushed, sync, sync_folder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoSibling

_log = logging.getLogger(__name__)

CONTACT_SECONDS = 8.0
"""Seconds after which a hub that has not answered counts as unreachable."""

_ABANDONED_SECONDS = 3600.0
"""Age after which a partial file that nobody writes to is taken for a remnant of a killed process."""
_MB = 1e6
_TOO_MANY, _SERVER_ERROR = 429, 500
"""HTTP status codes: too many requests, and the first of the server's own errors."""

_T = TypeVar("_T")


def download(
    name: str,
    repository: str,
    needed: Callable[[set[str]], set[str]],
    *,
    revision: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Download the needed files of a repository into the hub's cache.

    Files that are on this disk already are not downloaded again; a file that was interrupted starts anew. Each
    downloaded file is compared with the hub's hash.

    Args:
        name: Name of the model, as the user typed it.
        repository: owner/name on the hub.
        needed: Selects the needed ones among the file names of the repository.
        revision: A branch, a tag or a commit hash; None for the branch main.
        progress: Receives the number of bytes that have arrived.

    Returns:
        The folder of the snapshot.

    Raises:
        ModelError: the hub cannot be reached, or has no such model, or the disk is full.
    """
    with _quiet():
        commit, files = _on_hub(name, repository, needed, revision)
        folder = hub.storage(repository)
        snapshot = folder / "snapshots" / commit
        missing = [file for file in files if not (snapshot / file.rfilename).exists()]
        if missing:
            _check_space(name, folder, missing)
            megabytes = sum(file.size or 0 for file in missing) / _MB
            _log.warning(
                "Downloading model %r (%s, %s MB) from the Hugging Face hub ...", name, repository, f"{megabytes:,.0f}"
            )
        try:
            _fetch(name, repository, commit, missing, progress)
            # The branch changes last, so that on this disk it never points to an incomplete snapshot.
            if not commit.startswith(revision or "main"):
                ref = folder / "refs" / (revision or "main")
                ref.parent.mkdir(parents=True, exist_ok=True)
                replace_flushed(ref, commit.encode("ascii"))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ModelError(f"The disk is full: {folder} has no room for model {name!r}.") from error
            raise ModelError(f"Model {name!r} cannot be written to {folder}: {error.strerror or error}.") from error
    return snapshot


def _fetch(name: str, repository: str, commit: str, files: list[RepoSibling], progress: Progress) -> None:
    """Download files of a commit into the cache, one after the other.

    They are downloaded in this thread and not by the library's `snapshot_download`, because on Ctrl-C its pool of
    threads (in version 2.4) waits until the downloads that have begun are complete.
    """
    done, total = 0, sum(file.size or 0 for file in files)
    for file in files:
        for _ in range(2):
            path = _fetch_one(name, repository, commit, file.rfilename, _bar(done, total, progress))
            if _is_whole(path, _hash(file)):
                break
            hub.remove(path)
        else:
            raise ModelError(
                f"{path.name} of model {name!r} arrived damaged twice: its hash is not the one that the hub has. "
                "Something between the hub and this machine changes it; try another network."
            )
        with path.open("rb") as content:
            sync(content.fileno())
        for folder in {path.parent, path.resolve().parent}:
            sync_folder(folder)
        done += file.size or 0
        progress.downloading(done, total)


def _fetch_one(name: str, repository: str, commit: str, file: str, bar: type[Any]) -> Path:
    """Let the library download a file into the cache, unless it is there, and return its path."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(
                repository, file, revision=commit, cache_dir=hub.cache(), etag_timeout=CONTACT_SECONDS, tqdm_class=bar
            )
        )
    except Exception as error:  # the HTTP libraries below share no base class
        cause = (error.__cause__ or error) if isinstance(error, LocalEntryNotFoundError) else error
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            if status < _SERVER_ERROR and status != _TOO_MANY:
                raise _refused(name, repository, None, cause) from error
        elif isinstance(cause, OSError) and cause.errno is not None:
            raise  # an error of the disk
        raise ModelError(
            f"The download of model {name!r} stopped in {file}: {_first_line(cause)}.", hint="pull-rest", model=name
        ) from error


def _bar(before: int, total: int, progress: Progress) -> type[Any]:
    """Make a class of progress bar for the library that draws nothing and reports to `progress`."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # public, but not for mypy

    class Bar(tqdm):  # type: ignore[misc,unused-ignore]
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(disable=True)  # type: ignore[no-untyped-call,unused-ignore]
            self._done = before

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            progress.downloading(self._done, total)

        def update_transfer(self, _: float | None = 1) -> None:
            """Ignore the bytes that hf-xet has received; `update` gets the resulting bytes of the file."""

        def set_transfer_postfix_str(self, *_: object, **__: object) -> None:
            """Ignore the speed of hf-xet."""

    return Bar


def _hash(file: RepoSibling) -> str:
    """Return the hash of a file, its name in the cache; empty for mirrors of the hub that list names only."""
    return (file.lfs.sha256 if file.lfs else file.blob_id) or ""


def _is_whole(path: Path, known: str) -> bool:
    return hub.digest(path, known) == known if hub.is_hash(known) else not hub.is_blob(path) or hub.blob_is_whole(path)


def _on_hub(
    name: str, repository: str, needed: Callable[[set[str]], set[str]], revision: str | None
) -> tuple[str, list[RepoSibling]]:
    """Ask the hub, for at most `CONTACT_SECONDS`, for the commit of a revision and the needed files of that commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = _within(
            CONTACT_SECONDS,
            lambda: HfApi().model_info(repository, revision=revision, timeout=CONTACT_SECONDS, files_metadata=True),
        )
    except OfflineModeIsEnabled as error:
        raise _unreachable(name, repository, "HF_HUB_OFFLINE is set") from error
    except HfHubHTTPError as error:
        raise _refused(name, repository, revision, error) from error
    except Exception as error:  # the HTTP libraries below share no base class; any failure means this
        raise _unreachable(name, repository, _first_line(error)) from error
    if not hub.is_whole_commit(info.sha or ""):
        raise _unreachable(name, repository, "what answers is not like the Hugging Face hub")
    files = {file.rfilename: file for file in info.siblings or []}
    wanted = sorted(needed(set(files)))
    if not wanted:
        raise ModelError(
            f"{repository} on the Hugging Face hub holds no model that can be loaded: no weights in safetensors, "
            "and no PyTorch's beside a config.json. Other checkpoints are pickles, which may run any code and are not "
            "loaded.",
            hint="list-models",
        )
    return info.sha or "", [files[one] for one in wanted]


def _check_space(name: str, folder: Path, files: list[RepoSibling]) -> None:
    """Remove remnants of killed downloads, and check the free space.

    Raises:
        ModelError: the disk is too small for the missing files.
    """
    for part in (folder / "blobs").glob("*.incomplete"):
        with suppress(OSError):  # its download may end at this moment
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()
    needed = sum(file.size or 0 for file in files if not (folder / "blobs" / (_hash(file) or "-")).exists())
    disk = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise ModelError(
            f"Model {name!r} needs {needed / _MB:,.0f} MB more and {disk} has {free / _MB:,.0f} MB free. Make room, or "
            "name a folder on another disk: HF_HOME=DIR"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log and the warnings of huggingface_hub; what matters is raised as an error."""
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
    """Run `work` in a thread and return its result; name look-ups have no time limit of their own.

    Raises:
        TimeoutError: there is no result after `seconds`.
    """
    from concurrent.futures import Future  # a pool would keep the process alive until its thread ends

    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except Exception as error:  # noqa: BLE001  (raised again by `result`)
            result.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result.done():
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return result.result()


# -- errors ----------------------------------------------------------------------------------


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _refused(name: str, repository: str, revision: str | None, error: HfHubHTTPError) -> ModelError:
    """Return the error for an HTTP error of the hub."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repository} asks for permission: accept its terms on the hub and set HF_TOKEN.",
            hint="pull-permitted",
            model=name,
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(
            f"{repository} has no revision {revision!r} on the Hugging Face hub. Take a branch, a tag or a commit hash "
            f"of it, or leave it out: {name.partition('@')[0]}"
        )
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status == 401:  # noqa: PLR2004  (so it hides what is private)
        return ModelError(
            f"The Hugging Face hub knows no model {repository!r} (or it is private and HF_TOKEN is not set). "
            "Check the spelling.",
            hint="known-models",
        )
    if status == 403:  # noqa: PLR2004  (Forbidden)
        return ModelError(
            f"The Hugging Face hub refuses {repository} (403). Set HF_TOKEN to a valid token that may read it."
        )
    if status >= _SERVER_ERROR:
        return _unreachable(name, repository, f"it answers with an error of its own ({status})")
    return _unreachable(name, repository, _first_line(error))


def _unreachable(name: str, repository: str, reason: str) -> ModelError:
    state = (
        "only partly on this disk (a download was interrupted)" if hub.interrupted(repository) else "not on this disk"
    )
    return ModelError(
        f"Model {name!r} ({repository}) is {state}, and the Hugging Face hub cannot be reached: {reason}.",
        hint="no-network",
        model=name,
        repository=repository,
    )
