"""The public entry: which index is meant, and an index on the disk put together with its model.

The one module below the command line that looks at the current folder. Modules about a model's files are imported where
they are needed, which is not for a query.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import ClipsearchError, IndexMissingError, IndexUnfinishedError, InputError
from clipsearch.index.format import FOLDER, Computed, ModelRecord, mismatch
from clipsearch.index.reading import Store, find_index
from clipsearch.model_choice import BY_DEFAULT, ModelChoice
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.models.encoder_options import BY_ITSELF, FOR_QUERIES, EncoderOptions
from clipsearch.search.embedder import Embedder
from clipsearch.search.engine import ImageEngine, how_computed
from clipsearch.search.index import Index
from clipsearch.search.lazy_model import LazyModel
from clipsearch.search.messages import PREPARING, WHOLE_MODEL_NEEDED
from clipsearch.system.paths import absolute, same_place
from clipsearch.system.places import current_folder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.pipeline import LoadedModel
    from clipsearch.index.summary import Summary
    from clipsearch.index.updating import UpdateOptions
    from clipsearch.index.writing import Writer
    from clipsearch.models.disk.files import Pulled
    from clipsearch.models.in_torch.encoder import Encoder

_log = logging.getLogger(__name__)

_INDEX_USED = "index: %s"


def named_index(given: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the index that is named: `given`, else `CLIPSEARCH_INDEX`; None if none is.

    It may be the index folder itself or the folder that holds it. It need not be there.

    Raises:
        InputError: `given` is empty.
    """
    if given is not None and not os.fspath(given):
        raise InputError("The name of an index folder is empty. Leave it out to take the nearest index.")
    named = given or os.environ.get("CLIPSEARCH_INDEX")
    if not named:
        return None
    folder = Path(os.path.expanduser(named))
    return folder / FOLDER if os.path.isdir(folder / FOLDER) else folder


def index_folder(given: str | os.PathLike[str] | None = None, *, may_be_new: bool = False) -> Path:
    """The folder of an index: that which is named (see `named_index`), else the nearest from here upwards.

    If it `may_be_new`, else the one in the current folder, which need not be there.

    Raises:
        IndexMissingError: nothing was named and none is found.
        InputError: `given` is empty, or there is no current folder.
    """
    if named := named_index(given):
        return named
    return current_folder() / FOLDER if may_be_new else find_index(current_folder())


def index_to_search(given: str | os.PathLike[str] | None) -> tuple[Path, Path | None]:
    """The folder of an index as for `index_folder`, and the one that it answers for; None for all that it knows.

    Found from a folder below its own, an index answers for that folder.
    """
    if named := named_index(given):
        return named, None
    here = current_folder()
    found = find_index(here)
    return found, None if same_place(absolute(found.parent), absolute(here)) else here


def open_index(folder: str | os.PathLike[str] | None = None) -> Index:
    """Open an index for searching. Loads no torch.

    Args:
        folder: the index folder, or the one that holds it; by default what `CLIPSEARCH_INDEX` names, else the nearest
            from the current folder upwards.

    Returns:
        The opened index: a context manager, which `close` closes as well.

    Raises:
        IndexUnfinishedError: the run that makes the index is still before its first image, or ended there.
        ClipsearchError: there is no index, or it cannot be read.
    """
    return open_at(index_folder(folder))


def open_at(folder: Path, *, engine: str = "auto") -> Index:
    """Open the index in just this folder, otherwise as `open_index` does; `engine` is as in `EncoderOptions`."""
    store = Store.open(folder)
    _warn_if_unfinished(store)
    _log.info(_INDEX_USED, store.folder)
    options = FOR_QUERIES if engine == "auto" else replace(FOR_QUERIES, engine=engine)
    return Index(store, Embedder(store, options=options), refresh=partial(_refreshed, store.folder))


def build_index(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    computing: EncoderOptions = BY_ITSELF,
    progress: Progress = SILENT,
    **options: Unpack[UpdateOptions],
) -> Index:
    """Make an index of image folders, or bring it up to date, and open it. Only new and changed images are embedded.

    Args:
        paths: folders or image files, one or several.
        folder: the index; by default .clipsearch in the current folder.
        model: the name of a model; by default as settings say, else that of the index, else laion.
        computing: the device, the precision, and how else the model is to compute.
        progress: is told how many images are found and done, and how much of a model is downloaded.
        options: `rules` (a `Rules`: which files count) and `skip_damaged`, which are remembered; `allow_empty`,
            `reread`, `max_pixels`, and for how many seconds to `wait` for another run. See `UpdateOptions`.

    Returns:
        The opened index. `Index.update` says what a run did, and which files it could not read.

    Raises:
        ModelMismatchError: the index has vectors of another model.
        ClipsearchError: a path cannot be used, the model cannot be had, or the index cannot be written.
    """
    place = index_folder(folder, may_be_new=True)
    some = [paths] if isinstance(paths, str | os.PathLike) else paths
    _refreshed(place, [Path(path) for path in some], model, progress, computing, **options)
    return open_at(place)


def _refreshed(
    folder: Path,
    paths: Sequence[Path],
    model: str | None,
    progress: Progress,
    computing: EncoderOptions = BY_ITSELF,
    **options: Unpack[UpdateOptions],
) -> Summary:
    from clipsearch.index.updating import update

    return update(
        folder, paths, IndexingModel(model, options=computing, progress=progress), progress=progress, **options
    )


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
    name: str | None = None,
    index: str | os.PathLike[str] | None = None,
    *,
    computing: EncoderOptions = BY_ITSELF,
    progress: Progress = SILENT,
) -> Embedder:
    """Open a model for work that needs no index. Images that an index of this model knows are not embedded again.

    Args:
        name: a short name, a folder or a repository on the hub; by default as settings say, else that of the nearest
            index, else laion.
        index: the folder of the index that is asked for images; by default the nearest, or one beside it whose name
            begins like its own (`.clipsearch-siglip2`).
        computing: the device, the precision, and how else the model is to compute.
        progress: is told how much of a download is there.

    Returns:
        The opened model: a context manager. What it needs is loaded when it is first asked for.

    Raises:
        ClipsearchError: there is no such index, or the model cannot be had.
    """
    from clipsearch.models.disk.files import locate

    nearest = None
    try:
        nearest = Store.open(index_folder(index))
    except IndexMissingError:
        if index is not None:
            raise
        _log.info("index: none here or above")
    choice = ModelChoice(name, [current_folder()], nearest.model() if nearest else None)
    store = nearest and _of_model(choice, nearest, look_beside=index is None)
    return Embedder(store or locate(choice.name, progress=progress), why=choice.why, options=computing)


def _of_model(choice: ModelChoice, nearest: Store, *, look_beside: bool) -> Store | None:
    """The index of a model: the nearest, or one beside it; None if there is none, and nearest is closed then."""
    known = nearest.model()
    if known and choice.made(known):
        _log.info(_INDEX_USED, nearest.folder)
        return nearest
    nearest.close()
    reason = f"its model is {known.name}" if known else "it has no model yet"
    _log.info("index: %s is not used, for %s", nearest.folder, reason)
    for store in _beside(nearest.folder) if look_beside else ():
        if (other := store.model()) and choice.made(other):
            _log.info(_INDEX_USED, store.folder)
            return store
        store.close()
    return None


def _beside(folder: Path) -> Iterator[Store]:
    """The indexes that lie beside one, as those of other models do; without those that cannot be read."""
    for other in sorted(folder.parent.glob(f"{FOLDER}*")):
        if other != folder and Store.exists(other):
            with suppress(ClipsearchError):
                yield Store.open(other)


class IndexingModel:
    """The model whose vectors an index is to hold; loaded only if something has to be embedded."""

    def __init__(
        self,
        name: str | None = None,
        *,
        otherwise: tuple[str, str] | None = (DEFAULT, BY_DEFAULT),
        options: EncoderOptions = BY_ITSELF,
        progress: Progress = SILENT,
    ) -> None:
        """What `ModelChoice` decides on from these once an index is open. `progress` is told how much is downloaded."""
        self._given, self._otherwise = name, otherwise
        self._options, self._progress = options, progress
        self._encoder: ImageEngine | Encoder | None = None
        """The image tower, once it was needed."""

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Decide for an open index, of which `known` is the model; settings may lie in `folders`.

        Raises:
            ModelMismatchError: it holds vectors of another model than is asked for.
        """
        _log.info(_INDEX_USED if not index.created else f"{_INDEX_USED} (to be made)", index.folder)
        self.choice = ModelChoice(self._given, folders, known, self._otherwise)
        bound = index.bound_model()
        if bound and self.choice.is_asked_for and not self.choice.made(bound):
            raise mismatch(index.folder, bound, f"{self.choice.name} ({self.choice.why})")

    def load(self, expected: int) -> LoadedModel:
        """The model, and what the index records of it. Leaves its towers where queries find them.

        Where images are `expected` that are too many for NumPy, torch is loaded in another thread meanwhile.

        Raises:
            ClipsearchError: the model or the device cannot be had.
        """
        from clipsearch.index.pipeline import LoadedModel
        from clipsearch.models.disk.files import locate

        files = locate(self.choice.name, revision=self.choice.revision, progress=self._progress)
        model = LazyModel(files, why=self.choice.why, options=self._options, expected=expected)
        self._encoder = model.encoder
        model.keep_towers()
        return LoadedModel(self._encoder, ModelRecord(*model.identity, self._encoder.dim))

    def computed(self) -> Computed | None:
        """How the model computes; None if it was not needed."""
        return how_computed(self._encoder) if self._encoder else None


def pull_model(
    name: str,
    *,
    update: bool = False,
    progress: Progress = SILENT,
) -> Pulled:
    """Bring a model to this disk, whole, and leave its towers where queries find them.

    With `update` the hub is asked for what is new, else only for what is missing. `progress` is told how much of it is
    there.

    Raises:
        ModelError: there is no such model, or it cannot be had.
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
