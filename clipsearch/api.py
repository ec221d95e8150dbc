"""The public entry: puts an index on disk and the text tower of its model together.

Rooms about a model's files are imported where they are needed, which is not for a query.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import (
    ClipsearchError,
    IndexMissingError,
    IndexUnfinishedError,
    InputError,
    ModelError,
)
from clipsearch.index.format import FOLDER, Computed, ModelRecord, mismatch
from clipsearch.index.reading import Store, find_index
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.models.in_torch.loading import BY_ITSELF, FOR_QUERIES, EncoderOptions, load_encoder
from clipsearch.search.embedder import (
    BY_DEFAULT,
    OF_THE_INDEX,
    PREPARING,
    WHOLE_MODEL_NEEDED,
    Embedder,
    encoder_loaded,
    model_used,
)
from clipsearch.search.index import Index
from clipsearch.settings import wanted_model
from clipsearch.system.places import current_folder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from clipsearch.index.pipeline import LoadedModel
    from clipsearch.models.disk.files import Pulled
    from clipsearch.models.in_torch.encoder import Encoder

_log = logging.getLogger(__name__)

_INDEX_USED = "index: %s"


def index_folder(given: str | os.PathLike[str] | None, start: Path | None = None) -> Path:
    """The folder of an existing index: `given`, else `CLIPSEARCH_INDEX`, else the nearest from `start` upwards.

    `given` may be the index folder itself or the folder that holds it.

    Raises:
        IndexMissingError: nothing was named and none is found.
        InputError: `given` is empty, or there is no current folder.
    """
    if given is not None and not os.fspath(given):
        raise InputError("The name of an index folder is empty. Leave it out to take the nearest index.")
    named = given or os.environ.get("CLIPSEARCH_INDEX")
    if not named:
        return find_index(start or current_folder())
    folder = Path(os.path.expanduser(named))
    return folder / FOLDER if os.path.isdir(folder / FOLDER) else folder


def open_index(
    folder: str | os.PathLike[str] | None = None,
) -> Index:
    """Open an index for searching; as for `index_folder`, by default the nearest one. Loads no torch.

    Raises:
        IndexUnfinishedError: the run that makes the index is still before its first image, or ended there.
        ClipsearchError: there is no index, or it cannot be read.
    """
    store = Store.open(index_folder(folder))
    _warn_if_unfinished(store)
    _log.info(_INDEX_USED, store.folder)
    return Index(store, Embedder(store, options=FOR_QUERIES))


def _warn_if_unfinished(store: Store) -> None:
    """Log what an index lacks: less is found than there is.

    Raises:
        IndexUnfinishedError: it has no image yet. "Nothing found" would be wrong: nothing was searched.
    """
    if store.is_whole():
        return
    from clipsearch.index.locking import is_locked

    at_work = is_locked(store.folder)
    if not at_work and store.is_whole():  # it has come to its end since we asked
        return
    images = store.count()
    if not images:
        store.close()
        if at_work:
            raise IndexUnfinishedError(
                f"The index in {store.folder} is being built, and there is no image in it yet. Try again in a moment."
            )
        raise IndexUnfinishedError(
            f"The index in {store.folder} holds no image: the run that was to make it was ended at its beginning.",
            hint="begin-again",
            folder=store.folder,
        )
    if at_work:
        _log.warning("The index in %s is being built: %d images so far.", store.folder, images)
    else:
        _log.warning(
            "The index in %s is not complete: the run that makes it was ended, with %d images so far.",
            store.folder,
            images,
            extra={"hint": "go-on"},
        )


def load_model(
    model: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = SILENT,
    options: EncoderOptions = BY_ITSELF,
) -> Embedder:
    """A model for work that needs no index: `model`, else as settings say, else that of the nearest index, else laion.

    Pictures that an index of this model knows are not embedded again: that in `folder`, as for `index_folder`, or if no
    folder is named, the nearest or one beside it whose name begins like its own (`.clipsearch-siglip2`). `progress`
    is told how much of a download is there.

    Raises:
        ClipsearchError: there is no such index, or the model cannot be had.
    """
    from clipsearch.models.disk.files import locate
    from clipsearch.models.disk.names import canonical

    nearest = None
    try:
        nearest = Store.open(index_folder(folder))
    except IndexMissingError:
        if folder is not None:
            raise
        _log.info("index: none here or above")
    wanted = wanted_model(model, [current_folder()])
    known = nearest.model() if nearest else None
    name = canonical(wanted[0]) if wanted else known.name if known else DEFAULT
    why = _why(wanted, known)
    of_model = _OfModel(name)
    if nearest and known and of_model(known):
        _log.info(_INDEX_USED, nearest.folder)
        return Embedder(nearest, why=why, options=options)
    if nearest:
        nearest.close()
        reason = f"its model is {known.name}" if known else "it has no model yet"
        _log.info("index: %s is not used, for %s", nearest.folder, reason)
        for store in _beside(nearest.folder) if folder is None else ():
            if (other := store.model()) and of_model(other):
                _log.info(_INDEX_USED, store.folder)
                return Embedder(store, why=why, options=options)
            store.close()
    return Embedder(locate(name, progress=progress), why=why, options=options)


def _beside(folder: Path) -> Iterator[Store]:
    """The indexes that lie beside one, as those of other models do; without those that cannot be read."""
    for other in sorted(folder.parent.glob(f"{FOLDER}*")):
        if other != folder and Store.exists(other):
            with suppress(ClipsearchError):
                yield Store.open(other)


class ModelChoice:
    """Which model an `index` run uses, decided at once and loaded only if something has to be embedded."""

    def __init__(
        self,
        folder: Path,
        roots: list[Path],
        flag: str | None,
        *,
        why: str | None = None,
        progress: Progress = SILENT,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        exact: bool = False,
    ) -> None:
        """Decide: `flag`, else environment, else `clipsearch.toml`, else the index's own model, else the default.

        `why` is logged if `flag` was decided on elsewhere; `progress` is told how much of a download is there. The rest
        is for the `Encoder`.

        Raises:
            ModelMismatchError: the index in `folder` was made with another model.
        """
        self.encoder: Encoder | None = None
        """The model, once it was needed."""
        self._progress = progress
        self._options = EncoderOptions(device=device, precision=precision, batch_size=batch_size, exact=exact)
        self._folder, self._wanted, self._given_why = folder, wanted_model(flag, roots), why
        _log.info(_INDEX_USED if Store.exists(folder) else f"{_INDEX_USED} (to be made)", folder)
        self._decide()

    def _decide(self) -> None:
        from clipsearch.models.disk.names import canonical

        known = bound = None
        if Store.exists(self._folder):
            with closing(Store.open(self._folder)) as store:
                known, bound = store.model(), store.bound_model()
        wanted = self._wanted
        self.name = canonical(wanted[0]) if wanted else known.name if known else DEFAULT
        self._why = self._given_why or _why(wanted, known)
        self._revision = known.revision if known and known.name == self.name else None
        self._is_final = bound is not None
        if bound and wanted and not _OfModel(self.name)(bound):
            raise mismatch(self._folder, bound, f"{wanted[0]} ({wanted[1]})")

    def load(self) -> LoadedModel:
        """The model, and what the index records of it. Leaves its towers where queries find them.

        Raises:
            ClipsearchError: the model or the device cannot be had.
        """
        from clipsearch.index.pipeline import LoadedModel
        from clipsearch.models.disk.files import locate
        from clipsearch.models.in_numpy.image_cache import save as save_image_tower
        from clipsearch.models.in_numpy.tower_cache import damage, made_anew

        if not self._is_final:
            self._decide()  # a run that this one waited for may have made the index
        files = locate(self.name, revision=self._revision, progress=self._progress)
        encoder = load_encoder(files, self._options)
        if found := damage(encoder.fingerprint):
            _log.warning(made_anew(encoder.name, found))
        encoder.save_text_tower()
        save_image_tower(encoder.fingerprint, files)
        self.encoder = encoder
        for fact in (model_used(encoder.name, encoder.revision, self._why), *encoder_loaded(encoder)):
            _log.info(fact)
        return LoadedModel(encoder, ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim))

    def computed(self) -> Computed | None:
        """How the model computes; None if it was not needed."""
        encoder = self.encoder
        if encoder is None:
            return None
        return Computed(str(encoder.device), encoder.device_reason, encoder.precision, encoder.precision_reason)


def _why(wanted: tuple[str, str] | None, known: ModelRecord | None) -> str:
    """Who chose a model: what `wanted_model` says, the index, or nobody."""
    if wanted:
        return wanted[1]
    return OF_THE_INDEX if known else BY_DEFAULT


def pull_model(
    name: str,
    *,
    update: bool = False,
    progress: Progress = SILENT,
) -> Pulled:
    """Bring a model to this disk, whole, and leave its towers where queries find them.

    With `update` the hub is asked for what is new, else only for what is missing. `progress`
    is told how much of it is there.

    Raises:
        ModelError: there is no such model, or it cannot be had.
    """
    from clipsearch.models.disk.files import fingerprint, pull
    from clipsearch.models.in_numpy.image_cache import save as save_image_tower
    from clipsearch.models.in_numpy.tower_cache import damage, is_whole, made_anew

    pulled = pull(name, update=update, progress=progress)
    made = fingerprint(pulled.files.folder)
    if not is_whole(made, thorough=True):
        if found := damage(made):
            _log.warning(made_anew(pulled.files.name, found))
        else:
            _log.warning(PREPARING, pulled.files.name)
        if not load_encoder(pulled.files, FOR_QUERIES).save_text_tower():
            _log.warning(WHOLE_MODEL_NEEDED, pulled.files.name)
    save_image_tower(made, pulled.files)
    return pulled


class _OfModel:
    """Whether an index was made with a model, under whichever name."""

    def __init__(self, name: str) -> None:
        self._name = name
        """Canonical."""

    def __call__(self, known: ModelRecord) -> bool:
        """It was if the name is the same, pins the commit that the index remembers, or means the same files."""
        if self._name == known.name:
            return True
        from clipsearch.models.disk.names import is_pinned

        if known.revision and is_pinned(self._name, known.name, known.revision):
            return True
        return self._fingerprint == known.fingerprint

    @cached_property
    def _fingerprint(self) -> str | None:
        """None if the model is not on this disk."""
        from clipsearch.models.disk.files import find_local, fingerprint

        try:
            files = find_local(self._name)
        except ModelError:
            return None  # there is no such model; that it is another one says enough
        return fingerprint(files.folder) if files else None
