"""The public entry: puts an index on disk and the text tower of its model together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from clipsearch.confidence import NEUTRAL, Rivals
from clipsearch.errors import ModelError, ModelMismatchError
from clipsearch.models.catalog import DEFAULT, ModelFiles, canonical, fingerprint, locate
from clipsearch.models.text_tower import TextTower, Tokens, remembered
from clipsearch.query import Index
from clipsearch.settings import wanted_model
from clipsearch.store.format import FOLDER, ModelRecord, mismatch
from clipsearch.store.reading import Store, find_index

if TYPE_CHECKING:
    from clipsearch.models.encoder import Encoder

_SHOWN = 40
"""So many characters are shown on both sides of the place where a text is cut."""


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
    return Index(store, _Encoders(store, say))


class TextEncoder(Protocol):
    """What turns words into vectors: a `TextTower`, or an `Encoder` where there is none."""

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by before a softmax."""

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(Q, D) unit vectors of texts."""


class _Encoders:
    """The model of an index, as `query.Encoders` wants it: each part is loaded when it is first asked for."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self._store = store
        self._say = say
        self._cut: set[str] = set()
        """Texts that were too long; it is said once."""

    def texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """(Q, D) unit vectors of Q texts."""
        for text in texts:
            cut = self._text_encoder.tokenize(text).cut_at
            if cut is not None and text not in self._cut:
                self._cut.add(text)
                kept, lost = text[max(0, cut - _SHOWN) : cut], text[cut : cut + _SHOWN].strip()
                self._say(f"The query is too long for the model, which reads as far as {kept!r} and not {lost!r}.")
        return self._text_encoder.encode_texts(texts)

    def image(self, content: bytes, name: bytes) -> npt.NDArray[np.float32]:
        """(D,) the unit vector of a picture, as `index` would make it on this device.

        Raises:
            UnreadableImageError: it is no picture, or broken.
        """
        from clipsearch.images.decoding import decode
        from clipsearch.images.quiet import quiet_decoders
        from clipsearch.models.preprocessing import Preprocessing

        # Before the model is loaded: what is no picture is refused at once.
        wanted = Preprocessing.load(self._files.folder)
        with quiet_decoders():
            picture = decode(content, name, at_least=wanted.enough)
        pixels = wanted(picture.image, picture.box)
        return np.asarray(self._encoder.encode_images(pixels[np.newaxis])[0])

    def rivals(self) -> Rivals:
        """The neutral prompts that texts are compared with."""
        encoder = self._text_encoder
        vectors = remembered(self._model.fingerprint, NEUTRAL, encoder.encode_texts)
        return Rivals(vectors, len(NEUTRAL), encoder.logit_scale)

    @cached_property
    def _model(self) -> ModelRecord:
        model = self._store.model()
        if model is None:
            raise ModelError(f"The index in {self._store.folder} names no model. Make it anew: clipsearch index PATH")
        return model

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        """The text tower from the cache, or made once from the model's weights.

        A model whose text tower is not CLIP's has none, and transformers has to be loaded for each query.
        """
        name, fingerprint = self._model.name, self._model.fingerprint
        if tower := TextTower.load(fingerprint):
            return tower
        self._say(f"Preparing the text tower of model {name!r}, which takes some seconds.")
        if not self._encoder.save_text_tower():
            self._say("It differs from CLIP's, so every query has to load the whole model.")
            return self._encoder
        tower = TextTower.load(fingerprint)
        if tower is None:
            raise ModelError(f"The text tower of {name!r} vanished from the cache.")
        return tower

    @cached_property
    def _files(self) -> ModelFiles:
        return locate(self._model.name, self._say)

    @cached_property
    def _encoder(self) -> Encoder:
        """The whole model.

        Raises:
            ModelError: it is not on this disk and cannot be had.
            ModelMismatchError: the model under this name is another one than the index was made with.
        """
        model = self._model
        encoder = _loaded(self._files, _Options(device="cpu", precision="auto", batch_size=None, exact=False))
        if encoder.fingerprint != model.fingerprint:
            raise ModelMismatchError(mismatch(self._store.folder, model, f"{model.name} as it is on this disk now"))
        return encoder


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
