"""Writes a tuned model as an ordinary model folder, with a note of how it was made and what it reaches."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch import __version__
from clipsearch.errors import InputError
from clipsearch.models.disk.files import fingerprint
from clipsearch.models.disk.tuned import NOTE, Base, base_of
from clipsearch.models.in_numpy.projection import check_projection, with_changed_projection
from clipsearch.system.flushing import sync_file, sync_folder
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.tuning import MAX_FALL, Tuned, embedded, tune_queries

if TYPE_CHECKING:
    from clipsearch.datasets.captions import Captions
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.search.embedder import Embedder


@dataclass(frozen=True)
class Report:
    """What tuning reached, and where it was written."""

    method: str
    base: Base
    """The model that was tuned; for one that was tuned for queries before, the model that it was made from."""
    tuned: Tuned
    folder: Path | None
    """The folder of the new model; None if it is no better, and nothing was written."""

    def as_json(self) -> dict[str, Any]:
        """Describe it with values that JSON has."""
        tuned = self.tuned
        return {
            "method": self.method,
            "base": asdict(self.base),
            "same_images": self.method == "query",
            "better": tuned.verdict is None,
            "verdict": tuned.verdict,
            "mix": tuned.mix,
            "images": dict(zip(("train", "choose", "test"), tuned.sizes, strict=True)),
            "measures": [_without_tuples(one._asdict()) for one in tuned.measures],
            "clipsearch": __version__,
        }


def _without_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def check_folder(folder: Path) -> None:
    """Check, before any work, that a model can be written to a folder.

    Raises:
        InputError: it exists, or its parent does not.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already.", hint="other-folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"There is no folder {folder.absolute().parent} to write the model in.")


def base_for(embedder: Embedder) -> tuple[ModelFiles, Base]:
    """Return the files of the model to tune, and the base of what is made from it for queries.

    Raises:
        ModelError: the model is not on this disk, or its texts are not projected by one matrix.
        ModelMismatchError: it is not the one on this disk that the index was made with.
    """
    files = embedder.files
    check_projection(files, embedder.embed_texts(["a"]).shape[1])
    name, revision, own = embedder.identity
    return files, base_of(files.folder, own) or Base(name, revision, own)


def tune_and_write(
    embedder: Embedder,
    own: Captions,
    known: Captions | None,
    folder: Path,
    *,
    seed: int = 0,
    max_fall: float = MAX_FALL,
    progress: Progress = SILENT,
) -> Report:
    """Tune how a model reads texts, and write the result to `folder` if it is better.

    Args:
        embedder: the model.
        own: captioned images to learn from; see `tuning.check`.
        known: the control set: captioned images that the model knows already; None if there is none.
        folder: what to make.
        seed: that of the random numbers.
        max_fall: how far recall@1 on the control set may fall.
        progress: is updated with the numbers of images embedded and of steps.

    Raises:
        InputError: an image cannot be read, or the folder exists or cannot be written.
        ModelError: the model is not on this disk, or its texts are not projected by one matrix.
    """
    files, base = base_for(embedder)
    pairs = embedded(embedder, own, seed=seed, progress=progress)
    control = known and embedded(embedder, known, seed=seed, control=True, progress=progress)
    tuned = tune_queries(embedder, pairs, control, seed=seed, max_fall=max_fall, progress=progress)
    report = Report("query", base, tuned, None if tuned.verdict else folder)
    if report.folder is not None:
        write(folder, lambda made: with_changed_projection(files, tuned.matrix, made), report.as_json(), seed)
    return report


def write(folder: Path, fill: Callable[[Path], None], note: dict[str, Any], seed: int) -> None:
    """Write a folder whose files `fill` makes, with a note, completely or not at all.

    Raises:
        InputError: the folder exists, or cannot be written.
    """
    check_folder(folder)
    made = None
    try:
        made = Path(tempfile.mkdtemp(prefix=".clipsearch-", suffix=".part", dir=folder.absolute().parent))
        fill(made)
        # The temporary folder was private; the model is as readable as what else the user makes.
        mask = os.umask(0)
        os.umask(mask)
        made.chmod(0o777 & ~mask)
        text = json.dumps({"fingerprint": fingerprint(made), "seed": seed, **note}, indent=1)
        (made / NOTE).write_text(f"{text}\n", "utf-8")
        for path in made.iterdir():
            sync_file(path)
        made.rename(folder)
        sync_folder(folder.absolute().parent)
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}.") from error
    finally:
        if made is not None and made.exists():
            shutil.rmtree(made, ignore_errors=True)
