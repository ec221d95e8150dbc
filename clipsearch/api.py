"""The entry points of the Python API: opens an index together with its model.

Below the command line, only this module, `index_choice` and `functions` look at the current folder. Modules about the
files of models are imported in functions, because a query does not need them.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import ClipsearchError, IndexMissingError, IndexUnfinishedError
from clipsearch.index.format import FOLDER, Computed, ModelRecord, mismatch
from clipsearch.index.reading import Store
from clipsearch.index_choice import index_folder
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.models.encoder_options import BY_ITSELF, FOR_QUERIES, EncoderOptions
from clipsearch.search.embedder import Embedder
from clipsearch.search.engine import ImageEngine, how_computed
from clipsearch.search.index import Index
from clipsearch.search.lazy_model import LazyModel
from clipsearch.search.messages import BY_DEFAULT, PREPARING, WHOLE_MODEL_NEEDED
from clipsearch.system.places import current_folder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.models import LoadedModel
    from clipsearch.index.summary import Summary
    from clipsearch.index.updating import UpdateOptions
    from clipsearch.index.writing import Writer
    from clipsearch.model_choice import ModelChoice
    from clipsearch.models.disk.files import ModelFiles, Pulled
    from clipsearch.models.in_torch.encoder import Encoder

_log = logging.getLogger(__name__)

INDEX_USED = "index: %s"
"""The line of the log about an index that is used."""


def open_index(folder: str | os.PathLike[str] | None = None, *, model: str | None = None) -> Index:
    """Open an index for searching, without importing torch.

    Args:
        folder: the index folder, or the one that contains it; by default the one that `CLIPSEARCH_INDEX` names, else
            the nearest from the current folder upwards.
        model: the folder of a model that `tune` made for queries from that of the index, which embeds texts then.

    Returns:
        The opened index. It is a context manager, and has a method `close`.

    Raises:
        ModelMismatchError: `model` was not made from the model of the index.
        IndexUnfinishedError: the index has no image yet, because the run that makes it is at work or was interrupted.
        ClipsearchError: there is no index, or it cannot be read.
    """
    return open_at(index_folder(folder), model)


def open_at(folder: Path, model: str | None = None, *, engine: str = "auto") -> Index:
    """Open the index in exactly this folder, as `open_index` does; `engine` is as in `EncoderOptions`."""
    store = Store.open(folder)
    warn_if_unfinished(store)
    _log.info(INDEX_USED, store.folder)
    embedder = embedder_for(store, model, for_queries(engine))
    return Index(store, embedder, refresh=partial(_refreshed, store.folder))


def for_queries(engine: str) -> EncoderOptions:
    """Return the options of a model for queries; `engine` is as in `EncoderOptions`."""
    return FOR_QUERIES if engine == "auto" else replace(FOR_QUERIES, engine=engine)


def build_index(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    computing: EncoderOptions = BY_ITSELF,
    progress: Progress = SILENT,
    **options: Unpack[UpdateOptions],
) -> Index:
    """Make or update an index of folders, and open it. Only new and changed images are embedded.

    Args:
        paths: folders, image files or addresses, one or several.
        folder: the index folder; by default .clipsearch in the current folder.
        model: the name of a model; by default that of the settings, else that of the index, else laion.
        computing: the device, precision and engine to compute with.
        progress: is updated with the numbers of images found and done, and with the download of a model.
        options: `rules` (a `Rules`, which files to take), `skip_damaged` and `regions`, which the index stores;
            `part` (as in "3/16"), which it stores, too; `allow_empty`, `reread`, `max_pixels`, and `wait`, the seconds
            to wait for another writer. See `UpdateOptions`.

    Returns:
        The opened index. `Index.update` returns a summary of a run, with the files that it could not read.

    Raises:
        ModelMismatchError: the index has vectors of another model.
        ClipsearchError: a path cannot be searched, the model is not available, or the index cannot be written.
    """
    place = index_folder(folder, may_be_new=True)
    some = [paths] if isinstance(paths, str | os.PathLike) else paths
    _refreshed(place, list(some), model, progress, computing, **options)
    return open_at(place)


def _refreshed(
    folder: Path,
    paths: Sequence[str | os.PathLike[str]],
    model: str | None,
    progress: Progress,
    computing: EncoderOptions = BY_ITSELF,
    **options: Unpack[UpdateOptions],
) -> Summary:
    from clipsearch.index.updating import update

    return update(
        folder, paths, IndexingModel(model, options=computing, progress=progress), progress=progress, **options
    )


def warn_if_unfinished(store: Store) -> None:
    """Warn that an index is incomplete, so that a search may miss images.

    Raises:
        IndexUnfinishedError: the index has no image yet. "Nothing found" would be misleading.
    """
    if store.is_whole():
        return
    from clipsearch.index.locking import is_locked

    at_work = is_locked(store.folder)
    if not at_work and store.is_whole():  # the run has finished meanwhile
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
    name: str | None = None,
    index: str | os.PathLike[str] | None = None,
    *,
    computing: EncoderOptions = BY_ITSELF,
    progress: Progress = SILENT,
) -> Embedder:
    """Open a model to embed texts and images. Vectors of images that an index of this model knows are taken from there.

    Args:
        name: a short name, a folder, or a repository on the hub; by default that of the settings, else that of the
            nearest index, else laion.
        index: the index folder to take vectors of images from; by default that of the nearest index, or of one beside
            it whose name begins with the same word (`.clipsearch-siglip2`).
        computing: the device, precision and engine to compute with.
        progress: is updated with the download of a model.

    Returns:
        The opened model, a context manager. Its parts are loaded when they are first needed.

    Raises:
        ClipsearchError: there is no such index, or the model is not available.
    """
    from clipsearch.models.disk.files import locate

    nearest = None
    try:
        nearest = Store.open(index_folder(index))
    except IndexMissingError:
        if index is not None:
            raise
        _log.info("index: none here or above")
    from clipsearch.model_choice import ModelChoice  # reads TOML, which a search does not need

    choice = ModelChoice(name, [current_folder()], nearest.model() if nearest else None)
    store = nearest and _of_model(choice, nearest, look_beside=index is None)
    if store is None:
        return Embedder(locate(choice.name, progress=progress), why=choice.why, options=computing)
    return Embedder(store, tuned=_tuned(choice, store), why=choice.why, options=computing)


def _tuned(choice: ModelChoice, store: Store) -> ModelFiles | None:
    """Return the files of the chosen model if it was tuned from that of an index; None if it is that of the index.

    Raises:
        ModelMismatchError: it is neither.
    """
    from clipsearch.models.disk.files import locate

    known = store.model()
    if known is None or choice.made(known):
        return None
    if choice.embeds_images_like(known):
        return locate(choice.name)
    raise mismatch(store.folder, known, choice.name)


def embedder_for(store: Store, model: str | None, options: EncoderOptions = FOR_QUERIES) -> Embedder:
    """Return the embedder of an index, or of a `model` that was tuned from that of the index for queries.

    Raises:
        ModelMismatchError: the model is neither that of the index nor tuned from it.
        ModelError: it is incomplete.
    """
    if model is None:
        return Embedder(store, options=options)
    from clipsearch.model_choice import ModelChoice

    choice = ModelChoice(model, [], store.model())
    return Embedder(store, tuned=_tuned(choice, store), why=choice.why, options=options)


def index_of(model: Embedder) -> Index | None:
    """Return the index whose vectors an opened model uses, to search with that model; None if it uses none."""
    return Index(model.store, model) if model.store else None


def _of_model(choice: ModelChoice, nearest: Store, *, look_beside: bool) -> Store | None:
    """Return the index of a model: `nearest` or one beside it; None if there is none. All others are closed."""
    known = nearest.model()
    if known and _fits(choice, known):
        _log.info(INDEX_USED, nearest.folder)
        return nearest
    nearest.close()
    reason = f"its model is {known.name}" if known else "it has no model yet"
    _log.info("index: %s is not used, for %s", nearest.folder, reason)
    for store in _beside(nearest.folder) if look_beside else ():
        if (other := store.model()) and _fits(choice, other):
            _log.info(INDEX_USED, store.folder)
            return store
        store.close()
    return None


def _fits(choice: ModelChoice, known: ModelRecord) -> bool:
    """Whether the vectors of images in an index of the model `known` are those of the chosen one."""
    return choice.made(known) or choice.embeds_images_like(known)


def _beside(folder: Path) -> Iterator[Store]:
    """Yield the readable indexes beside one, which may be those of other models."""
    for other in sorted(folder.parent.glob(f"{FOLDER}*")):
        if other != folder and Store.exists(other):
            with suppress(ClipsearchError):
                yield Store.open(other)


class IndexingModel:
    """The model for an update of an index, which is loaded only if an image has to be embedded."""

    def __init__(
        self,
        name: str | None = None,
        *,
        otherwise: tuple[str, str] | None = (DEFAULT, BY_DEFAULT),
        options: EncoderOptions = BY_ITSELF,
        progress: Progress = SILENT,
    ) -> None:
        """Choose as `ModelChoice` does, once an index is open. `progress` is updated with a download."""
        self._given, self._otherwise = name, otherwise
        self._options, self._progress = options, progress
        self._encoder: ImageEngine | Encoder | None = None
        """The image tower, once it is loaded."""
        self._loaded: LoadedModel | None = None
        """The same with its record, for further updates, until `let_go`."""
        self._loaded_as: tuple[str, str | None] | None = None
        """Name and revision that were chosen when it was loaded."""

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Choose the model for an open index that records the model `known`; there may be settings in `folders`.

        Raises:
            ModelMismatchError: the index holds vectors of another model than the one asked for.
        """
        _log.info(INDEX_USED if not index.created else f"{INDEX_USED} (to be made)", index.folder)
        from clipsearch.model_choice import ModelChoice

        self.choice = ModelChoice(self._given, folders, known, self._otherwise)
        bound = index.bound_model()
        if bound and self.choice.is_asked_for and self.choice.embeds_images_like(bound):
            self.choice = ModelChoice(bound.name, [], bound)
        if bound and self.choice.is_asked_for and not self.choice.made(bound):
            raise mismatch(index.folder, bound, f"{self.choice.name} ({self.choice.why})")
        if self._loaded_as != (self.choice.name, self.choice.revision):
            self.let_go()

    def side(self) -> int | None:
        """Return the shorter side of the images that the model is given, in pixels; None if it takes any proportions.

        Raises:
            ClipsearchError: the model is not available.
        """
        from clipsearch.models.preprocessing import Preprocessing

        return Preprocessing.load(self._files).side

    def load(self, expected: int) -> LoadedModel:
        """Load the model, unless it is loaded, and save its towers in the cache for queries.

        If more images are `expected` than NumPy is faster for, torch is loaded in another thread meanwhile.

        Raises:
            ClipsearchError: the model or the device is not available.
        """
        from clipsearch.index.models import LoadedModel

        if self._loaded is not None:
            if isinstance(self._encoder, ImageEngine):
                self._encoder.expect(expected)
            return self._loaded
        model = LazyModel(self._files, why=self.choice.why, options=self._options, expected=expected)
        self._encoder = model.encoder
        model.keep_towers()
        self._loaded_as = self.choice.name, self.choice.revision
        self._loaded = LoadedModel(self._encoder, ModelRecord(*model.identity, self._encoder.dim))
        return self._loaded

    def let_go(self) -> None:
        """Free the memory of the model; the next update that needs it loads it again."""
        was_loaded = self._encoder is not None
        self._encoder = self._loaded = self._loaded_as = None
        self.__dict__.pop("_files", None)
        if was_loaded:
            gc.collect()  # its parts refer to one another

    @cached_property
    def _files(self) -> ModelFiles:
        from clipsearch.models.disk.files import locate

        return locate(self.choice.name, revision=self.choice.revision, progress=self._progress)

    def computed(self) -> Computed | None:
        """Describe how the model computes; None if it is not loaded."""
        return how_computed(self._encoder) if self._encoder else None


def pull_model(
    name: str,
    *,
    update: bool = False,
    progress: Progress = SILENT,
) -> Pulled:
    """Download all files of a model that are missing, and save its towers in the cache for queries.

    With `update`, files that have changed on the hub are downloaded, too. `progress` is updated with the download.

    Raises:
        ModelError: there is no such model, or it cannot be downloaded or loaded.
    """
    from clipsearch.models.disk.files import pull
    from clipsearch.models.in_numpy.tower_cache import damage, is_whole

    pulled = pull(name, update=update, progress=progress)
    model = LazyModel(pulled.files, options=FOR_QUERIES)
    if not is_whole(model.fingerprint, thorough=True) and not damage(model.fingerprint):
        _log.warning(PREPARING, model.name)
    if not model.keep_towers():
        _log.warning(WHOLE_MODEL_NEEDED, model.name)
    return pulled
