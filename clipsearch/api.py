"""The public entry: puts an index on disk and the text tower of its model together.

Rooms about a model's files are imported where they are needed, which is not for a query.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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
    ModelMismatchError,
)
from clipsearch.index.format import FOLDER, Computed, ModelRecord, mismatch
from clipsearch.index.reading import Store, find_index
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.models.in_torch.loading import BY_ITSELF, FOR_QUERIES, EncoderOptions, load_encoder
from clipsearch.search import telling
from clipsearch.search.embedder import Embedder
from clipsearch.search.index import Index
from clipsearch.settings import wanted_model
from clipsearch.system.places import current_folder

if TYPE_CHECKING:
    from clipsearch.models.disk.downloading import Progress
    from clipsearch.models.disk.files import Pulled
    from clipsearch.models.in_torch.encoder import Encoder


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
    *,
    say: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Index:
    """Open an index for searching; as for `index_folder`, by default the nearest one. Loads no torch.

    `say` hears of anything that takes long or should be known, `tell` of what is used and why.

    Raises:
        IndexUnfinishedError: the run that makes the index is still before its first image, or ended there.
        ClipsearchError: there is no index, or it cannot be read.
    """
    store = Store.open(index_folder(folder))
    _say_if_unfinished(store, say)
    tell(telling.index_used(store.folder))
    return Index(store, Embedder(store, say, tell=tell, options=FOR_QUERIES), tell, say)


def _say_if_unfinished(store: Store, say: Callable[[str], None]) -> None:
    """Say what an index lacks: less is found than there is.

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
        raise IndexUnfinishedError(telling.index_without_images(store.folder, at_work=at_work))
    say(telling.index_unfinished(store.folder, images, at_work=at_work))


def load_model(
    model: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
    options: EncoderOptions = BY_ITSELF,
) -> Embedder:
    """A model for work that needs no index: `model`, else as settings say, else that of the nearest index, else laion.

    Pictures that an index of this model knows are not embedded again: that in `folder`, as for `index_folder`, or if no
    folder is named, the nearest or one beside it whose name begins like its own (`.clipsearch-siglip2`). `say` and
    `tell` are as for `open_index`, `progress` is as for `pull_model`.

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
        tell(telling.index_missing())
    wanted = wanted_model(model, [current_folder()])
    known = nearest.model() if nearest else None
    name = canonical(wanted[0]) if wanted else known.name if known else DEFAULT
    why = _why(wanted, known)
    of_model = _OfModel(name)
    if nearest and known and of_model(known):
        tell(telling.index_used(nearest.folder))
        return Embedder(nearest, say, tell=tell, why=why, options=options)
    if nearest:
        nearest.close()
        tell(telling.index_not_used(nearest.folder, known.name if known else None))
        for store in _beside(nearest.folder) if folder is None else ():
            if (other := store.model()) and of_model(other):
                tell(telling.index_used(store.folder))
                return Embedder(store, say, tell=tell, why=why, options=options)
            store.close()
    return Embedder(locate(name, say, progress=progress), say, tell=tell, why=why, options=options)


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
        say: Callable[[str], None],
        *,
        tell: Callable[[str], None] = lambda _: None,
        why: str | None = None,
        progress: Progress = lambda *_: None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        exact: bool = False,
    ) -> None:
        """Decide: `flag`, else environment, else `clipsearch.toml`, else the index's own model, else the default.

        `say` and `tell` are as for `open_index`, `progress` is as for `pull_model`; `why` is told if `flag` was decided
        on elsewhere. The rest is for the `Encoder`.

        Raises:
            ModelMismatchError: the index in `folder` was made with another model.
        """
        self.encoder: Encoder | None = None
        """The model, once it was needed."""
        self._say, self._tell, self._progress = say, tell, progress
        self._options = EncoderOptions(device=device, precision=precision, batch_size=batch_size, exact=exact)
        self._folder, self._wanted, self._given_why = folder, wanted_model(flag, roots), why
        tell(telling.index_used(folder) if Store.exists(folder) else telling.index_to_be_made(folder))
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
            raise ModelMismatchError(mismatch(self._folder, bound, f"{wanted[0]} (from {wanted[1]})"))

    def load(self) -> tuple[Encoder, ModelRecord]:
        """The model, and what the index records of it. Leaves its text tower where queries find it.

        Raises:
            ClipsearchError: the model or the device cannot be had.
        """
        from clipsearch.models.disk.files import locate

        if not self._is_final:
            self._decide()  # a run that this one waited for may have made the index
        files = locate(self.name, self._say, revision=self._revision, progress=self._progress)
        encoder = load_encoder(files, self._options, self._say)
        encoder.divide_cores()
        encoder.save_text_tower(self._say)
        self.encoder = encoder
        for fact in (telling.model_used(encoder.name, encoder.revision, self._why), *telling.encoder_loaded(encoder)):
            self._tell(fact)
        return encoder, ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)

    def computed(self) -> Computed | None:
        """How the model computes; None if it was not needed."""
        return telling.computed_by(self.encoder) if self.encoder else None


def _why(wanted: tuple[str, str] | None, known: ModelRecord | None) -> str:
    """Who chose a model: what `wanted_model` says, the index, or nobody."""
    if wanted:
        return f"from {wanted[1]}"
    return telling.OF_THE_INDEX if known else telling.BY_DEFAULT


def pull_model(
    name: str,
    *,
    update: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> Pulled:
    """Bring a model to this disk, whole, and leave its text tower where queries find it.

    With `update` the hub is asked for what is new, else only for what is missing. `say` hears what takes long, and
    `progress` how many bytes of how many are there.

    Raises:
        ModelError: there is no such model, or it cannot be had.
    """
    from clipsearch.models.disk.files import fingerprint, pull
    from clipsearch.models.in_numpy.tower_cache import damage, is_whole, made_anew

    pulled = pull(name, say, update=update, progress=progress)
    made = fingerprint(pulled.files.folder)
    if not is_whole(made, thorough=True):
        found, name = damage(made), pulled.files.name
        preparing = f"Preparing the text tower of model {name!r}, which takes some seconds."
        say(made_anew(name, found) if found else preparing)
        if not load_encoder(pulled.files, FOR_QUERIES).save_text_tower():
            say(telling.whole_model_needed(pulled.files.name))
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
