"""Writes a tuned model as an ordinary model folder, with a note of how it was made and what it reaches."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch import __version__
from clipsearch.errors import InputError
from clipsearch.models.disk.files import fingerprint
from clipsearch.models.disk.tuned import NOTE, Base, base_of
from clipsearch.models.in_numpy.changed_weights import check_projection
from clipsearch.system.flushing import sync_file, sync_folder
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.tuning.captioned import embedded
from clipsearch.tasks.tuning.measuring import Tuned
from clipsearch.tasks.tuning.options import MANY_PAIRS, Method, Options
from clipsearch.tasks.tuning.query import tune_queries

if TYPE_CHECKING:
    from clipsearch.datasets.captions import Captions
    from clipsearch.search.embedder import Embedder


@dataclass(frozen=True)
class Report:
    """What tuning reached, and where it was written."""

    method: str
    """"query" or "lora"."""
    base: Base
    """The model that was tuned; if images keep their vectors, and it was tuned so before, the model that it was made
    from."""
    same_images: bool
    """Whether images have the vectors that `base` gives them, so that an index of `base` answers the new model."""
    tuned: Tuned
    folder: Path | None
    """The folder of the new model; None if it is no better, and nothing was written."""

    def as_json(self) -> dict[str, Any]:
        """Describe it with values that JSON has."""
        tuned = self.tuned
        return {
            "method": self.method,
            "base": asdict(self.base),
            "same_images": self.same_images,
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


def check_method(options: Options) -> None:
    """Check, before any work, that what the method needs is there.

    Raises:
        InputError: it is not.
    """
    if options.method == Method.LORA and not is_installed():
        raise InputError("Weights are trained with peft, which is not installed.", hint="install-tune")


def is_installed() -> bool:
    """Whether the package that trains weights is there."""
    return find_spec("peft") is not None


def base_for(embedder: Embedder) -> Base:
    """Return the model to tune; if it was made from another one that embeds images as it does, that one.

    Raises:
        ModelError: the model is not on this disk.
        ModelMismatchError: it is not the one on this disk that the index was made with.
    """
    name, revision, own = embedder.identity
    return base_of(embedder.files.folder, own) or Base(name, revision, own)


def method_for(pairs: int, options: Options, embedder: Embedder) -> Method:
    """Return the method for a number of pairs."""
    if options.method != Method.AUTO:
        return Method(options.method)
    if pairs < MANY_PAIRS or not is_installed():
        return Method.QUERY
    from clipsearch.models.in_torch.precision import choose_device

    return Method.QUERY if choose_device(embedder.options.device).device.type == "cpu" else Method.LORA


def tune_and_write(
    embedder: Embedder,
    own: Captions,
    known: Captions | None,
    folder: Path,
    *,
    options: Options,
    progress: Progress = SILENT,
) -> Report:
    """Fit a model to captioned images, and write the result to `folder` if it is better.

    Args:
        embedder: the model.
        own: captioned images to learn from; see `captioned.check`.
        known: the control set: captioned images that the model knows already; None if there is none.
        folder: what to make.
        options: how to tune.
        progress: is updated with the numbers of images embedded or decoded, and of steps.

    Raises:
        InputError: an image cannot be read, the folder exists or cannot be written, or what the method needs is not
            installed.
        ModelError: the model is not on this disk, or cannot be tuned so.
    """
    if method_for(len(own.pairs), options, embedder) == Method.QUERY:
        tuned = _for_queries(embedder, own, known, options, progress)
        return _written(Report(Method.QUERY, base_for(embedder), True, tuned, None), folder, options.seed)
    from clipsearch.tasks.tuning.checkpoint import working_folder
    from clipsearch.tasks.tuning.weights import tune_weights

    with working_folder(folder) as work:
        base = Base(*embedder.identity) if options.trains_images else base_for(embedder)
        tuned = tune_weights(embedder, own, known, work, options=options, progress=progress)
        return _written(Report(Method.LORA, base, not options.trains_images, tuned, None), folder, options.seed)


def _for_queries(
    embedder: Embedder, own: Captions, known: Captions | None, options: Options, progress: Progress
) -> Tuned:
    check_projection(embedder.files, embedder.embed_texts(["a"]).shape[1])
    pairs = embedded(embedder, own, seed=options.seed, progress=progress)
    control = known and embedded(embedder, known, seed=options.seed, control=True, progress=progress)
    return tune_queries(embedder, pairs, control, seed=options.seed, max_fall=options.max_fall, progress=progress)


def _written(report: Report, folder: Path, seed: int) -> Report:
    """Write the model if it is better, and return the report with its folder."""
    if report.tuned.verdict:
        return report
    write(folder, report.tuned.save, report.as_json(), seed)
    return replace(report, folder=folder)


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
