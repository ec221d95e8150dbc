"""The public entry: puts an index on disk and the text tower of its model together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError, ModelMismatchError
from clipsearch.models.catalog import DEFAULT, ModelFiles, canonical, fingerprint, locate
from clipsearch.models.text_tower import TextTower, Tokens
from clipsearch.query import Index
from clipsearch.settings import wanted_model
from clipsearch.store.format import FOLDER, ModelRecord, mismatch
from clipsearch.store.reading import Store, find_index

if TYPE_CHECKING:
    from clipsearch.models.encoder import Encoder


def index_folder(given: str | os.PathLike[str] | None, start: Path | None = None) -> Path:
    """The folder of an existing index: `given`, else `CLIPSEARCH_INDEX`, else the nearest from `start` upwards.

    `given` may be the index folder itself or the folder that holds it.

    Raises:
        IndexMissingError: nothing was named and none is found.
    """
    named = given or os.environ.get("CLIPSEARCH_INDEX")
    if not named:
        return find_index(start or Path.cwd())
    folder = Path(named).expanduser()
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def open_index(folder: str | os.PathLike[str] | None = None, *, say: Callable[[str], None] = lambda _: None) -> Index:
    """Open an index for searching; as for `index_folder`, by default the nearest one. Loads no torch.

    `say` hears of anything that takes long or should be known.

    Raises:
        ClipsearchError: there is no index, or it cannot be read.
    """
    store = Store.open(index_folder(folder))
    encoder: TextEncoder | None = None

    def encode(texts: list[str]) -> npt.NDArray[np.float32]:
        nonlocal encoder
        encoder = encoder or text_encoder_of(store, say)
        for text in texts:
            cut = encoder.tokenize(text).cut_at
            if cut is not None:
                say(f"The query is too long for the model; it reads as far as: ...{text[max(0, cut - 40) : cut]!r}")
        return encoder.encode_texts(texts)

    return Index(store, encode)


class TextEncoder(Protocol):
    """What turns words into vectors: a `TextTower`, or an `Encoder` where there is none."""

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(Q, D) unit vectors of texts."""


def text_encoder_of(store: Store, say: Callable[[str], None]) -> TextEncoder:
    """The text tower of the index's model: from the cache, or made once from the model's weights.

    A model whose text tower is not CLIP's has none, and transformers has to be loaded for each query.

    Raises:
        ModelError: the tower is not in the cache and the model is not on this disk.
        ModelMismatchError: the model under this name is another one than the index was made with.
    """
    model = store.model()
    if model is None:
        raise ModelError(f"The index in {store.folder} names no model. Make it anew: clipsearch index PATH")
    return TextTower.load(model.fingerprint) or _make_tower(store, model, say)


def _make_tower(store: Store, model: ModelRecord, say: Callable[[str], None]) -> TextEncoder:
    say(f"Preparing the text tower of model {model.name!r}, which takes some seconds.")
    encoder = _loaded(locate(model.name, say), _Options(device="cpu", precision="auto", batch_size=None, exact=False))
    if encoder.fingerprint != model.fingerprint:
        raise ModelMismatchError(mismatch(store.folder, model, f"{model.name} as it is on this disk now"))
    if not encoder.save_text_tower():
        say("It differs from CLIP's, so every query has to load the whole model.")
        return encoder
    tower = TextTower.load(model.fingerprint)
    if tower is None:
        raise ModelError(f"The text tower of {model.name!r} vanished from the cache.")
    return tower


class _Options(TypedDict):
    """How an `Encoder` is to work."""

    device: str
    precision: str
    batch_size: int | None
    exact: bool


def _loaded(files: ModelFiles, options: _Options) -> Encoder:
    """The model in `files`. Its weights are hashed while Python imports torch and transformers, which takes longer."""
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(fingerprint, files.folder)
        from clipsearch.models.encoder import Encoder

        return Encoder(files, **options, known_fingerprint=hashed.result())


class ModelChoice:
    """Which model an `index` run uses, decided at once and loaded only if something has to be embedded."""

    def __init__(
        self,
        folder: Path,
        roots: list[Path],
        flag: str | None,
        say: Callable[[str], None],
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        exact: bool = False,
    ) -> None:
        """Decide: `flag`, else environment, else `clipsearch.toml`, else the index's own model, else the default.

        The rest is for the `Encoder`.

        Raises:
            ModelMismatchError: the index in `folder` was made with another model.
        """
        self.encoder: Encoder | None = None
        """The model, once it was needed."""
        self._say = say
        self._options = _Options(device=device, precision=precision, batch_size=batch_size, exact=exact)
        known = None
        if Store.exists(folder):
            with closing(Store.open(folder)) as store:
                known = store.model()
        wanted = wanted_model(flag, roots)
        self.name = canonical(wanted[0]) if wanted else known.name if known else DEFAULT
        if known and wanted and self.name != known.name and not _is_copy(self.name, known):
            raise ModelMismatchError(mismatch(folder, known, f"{wanted[0]} (from {wanted[1]})"))

    def load(self) -> tuple[Encoder, ModelRecord]:
        """The model, and what the index records of it. Leaves its text tower where queries find it.

        Raises:
            ClipsearchError: the model or the device cannot be had.
        """
        encoder = _loaded(locate(self.name, self._say), self._options)
        encoder.divide_cores()
        encoder.save_text_tower()
        self.encoder = encoder
        return encoder, ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)


def _is_copy(name: str, known: ModelRecord) -> bool:
    """Whether `name` is a folder with the very model that the index was made with."""
    return Path(name).is_dir() and fingerprint(Path(name)) == known.fingerprint
