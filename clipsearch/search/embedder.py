"""A model at work: texts, tokens and pictures to vectors. Each tower is loaded when it is first asked for.

Texts need no torch where the model's text tower is CLIP's, and pictures that an index knows need no model at all.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Self, Union

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, ModelError, UnreadableImageError
from clipsearch.index.format import ModelRecord, mismatch
from clipsearch.index.reading import Store
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.text_tower import LIKE_CLIP, LIKE_SIGLIP, Tokens
from clipsearch.models.in_numpy.tower_cache import TowerDamagedError
from clipsearch.models.in_torch.loading import BY_ITSELF, FOR_QUERIES, EncoderOptions, checked_fingerprint, load_encoder
from clipsearch.models.logits import Logits
from clipsearch.search import messages
from clipsearch.search.confidence import NEUTRAL, NegativePrompts
from clipsearch.search.encoders import TextEncoder, warn_of_damage
from clipsearch.search.engine import ImageEngine, find_tower, why_no_tower
from clipsearch.system.paths import absolute
from clipsearch.unit import Vectors, are_unit

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer

    from clipsearch.images.finding import ImageFile
    from clipsearch.index.pipeline import Item
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

AnyImage = Union[str, os.PathLike[str], "Image.Image"]
"""A path, or a Pillow image."""


class Embedder:
    """Makes unit vectors of texts and images with one model, and loads of it what is needed when it is first needed."""

    def __init__(
        self,
        source: Store | ModelFiles,
        *,
        why: str | None = None,
        options: EncoderOptions = BY_ITSELF,
        expected: int = 0,
    ) -> None:
        """The model of an index, whose vectors are used for pictures that it knows, or a model on this disk.

        Args:
            source: The index, or the files of the model.
            why: What made somebody choose this model.
            options: How it is to compute.
            expected: Number of images that are known to need the model.
        """
        self._store = source if isinstance(source, Store) else None
        self._known_files = None if isinstance(source, Store) else source
        self._logged: set[str] = set()
        """Facts about the model; each is logged once."""
        self._why = why or (messages.OF_THE_INDEX if self._store else messages.AS_ASKED_FOR)
        self._options = options
        self._engine: ImageEngine | None = None
        self._encoder_in_torch: Encoder | None = None
        self._expected = expected
        self._loading = threading.RLock()
        """Threads may search at the same time; one of them loads."""
        self._loading_torch = threading.Lock()
        """The same, for the model in torch: texts do not wait for it while it is loaded for images."""
        self.damaged: list[tuple[bytes, float]] = []
        """Path of each picture so far of which a part is missing, and the share of it; in no order."""
        self._cut: set[str] = set()
        """Texts that were too long; it is logged once for each."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store:
            self._store.close()

    @property
    def name(self) -> str:
        """As the user would type it."""
        return self._record.name if self._record else self._files.name

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """Name, revision and fingerprint: what an index records of a model."""
        if self._record:
            return self._record.name, self._record.revision, self._record.fingerprint
        return self._files.name, self._files.revision, self._fingerprint

    @property
    def uses_index(self) -> bool:
        """Whether an index is asked for pictures first."""
        return self._store is not None

    @property
    def logits(self) -> Logits:
        """What makes probabilities of cosines."""
        return self._text_encoder.logits

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts.

        Args:
            texts: Q of them. What does not fit into the model's context is cut off, and that is logged.

        Returns:
            (Q, D) float32 unit vectors.

        Raises:
            ModelError: the model makes none.
        """
        tokens = [self._text_encoder.tokenize(text) for text in texts]
        for text, (read, _, cut) in zip(texts, tokens, strict=True):
            if cut is not None and text not in self._cut:
                self._cut.add(text)
                _log.warning(messages.CUT, *messages.around(read, cut))
        vectors = self._text_encoder.encode_tokens(tokens)
        sound = are_unit(vectors)
        if not sound.all():
            raise messages.no_vector(self.name, texts[int(sound.argmin())])
        return vectors

    @property
    def engine(self) -> str:
        """What embeds images, or would: numpy or torch."""
        encoder = self.encoder
        return encoder.name if isinstance(encoder, ImageEngine) else "torch"

    def image(self, content: bytes, name: bytes) -> Vectors:
        """(D,) the unit vector of a picture, as `index` would make it on this device.

        Raises:
            UnreadableImageError: it is no picture, or broken.
        """
        # Before the model is loaded: what is no picture is refused at once.
        pixels, share = self._pixels(content, name)
        if share:
            warn_of_damage(name, share)
        from clipsearch.index.pipeline import vectors_of

        (result,) = vectors_of(self.encoder, self.name, [pixels])
        if isinstance(result, UnreadableImageError):
            raise result
        return result

    def embed_images(self, images: Iterable[AnyImage]) -> Vectors:
        """Embed images as `index` would on this device.

        Args:
            images: N paths, or Pillow images.

        Returns:
            (N, D) float32 unit vectors. What an index of this model knows is taken from there.

        Raises:
            InputError: an image cannot be read.
            ModelError: the model cannot be had.
        """
        from clipsearch.images.finding import named_file

        given = list(images)
        opened = [image for image in given if not isinstance(image, str | os.PathLike)]
        files = [named_file(absolute(image)) for image in given if isinstance(image, str | os.PathLike)]
        of_files, of_opened = self.images(files), iter(self._of_pixels(opened))
        vectors = [next(of_files)[1] if isinstance(image, str | os.PathLike) else next(of_opened) for image in given]
        of_files.close()
        for image, vector in zip(given, vectors, strict=True):
            if isinstance(vector, UnreadableImageError):
                raise InputError(f"Cannot read the image {image}: {vector}")
        sound = [vector for vector in vectors if not isinstance(vector, UnreadableImageError)]
        return np.stack(sound) if sound else np.empty((0, self._text_encoder.dim), np.float32)

    def images(
        self, files: Sequence[ImageFile]
    ) -> Generator[tuple[ImageFile, Vectors | UnreadableImageError], None, None]:
        """The (D,) unit vector of each picture, or why there is none, in order.

        Reading, decoding and the model work at the same time. Close it if it is not read to its end.
        """
        from clipsearch.index.pipeline import embed_images, read_images

        _ = self._record  # asked here: the index belongs to this thread
        if self._store is None:
            self._expected = len(files)  # with an index, nobody knows how many it lacks
        with (
            self._counting(),
            closing(read_images(files)) as contents,
            closing(embed_images(map(self._with_known, contents), self, total=len(files))) as batches,
        ):
            for item in chain.from_iterable(batch.items for batch in batches):
                if item.vector is None:
                    yield item.file, UnreadableImageError(str(item.record.error))
                    continue
                if item.record.damage:
                    self.damaged.append((item.file.path, item.record.damage))
                yield item.file, item.vector

    def negatives(self) -> NegativePrompts:
        """The neutral prompts that texts are compared with."""
        encoder = self._text_encoder
        if encoder.logits.bias is not None:
            return NegativePrompts(np.empty((0, encoder.dim), np.float32), 0, encoder.logits)
        vectors = tower_cache.remembered(self._fingerprint, NEUTRAL, encoder.dim, self.embed_texts)
        return NegativePrompts(vectors, len(NEUTRAL), encoder.logits)

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""
        return self._text_encoder.tokenize(text)

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""
        return self._text_encoder.tokenizer

    @property
    def context(self) -> int:
        """Most tokens that the text tower reads, start and end included."""
        return self._text_encoder.context

    # -- how -------------------------------------------------------------------------------------------------

    def _log_once(self, *facts: str) -> None:
        """Log facts about the model, which is named first."""
        name, revision = (self._record or self._files).name, (self._record or self._files).revision
        for fact in (messages.model_used(name, revision, self._why), *facts):
            if fact not in self._logged:
                self._logged.add(fact)
                _log.info(fact)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Within: pictures are embedded; at the end it is told how many the index knew."""
        self._seen = self._seen_before = 0
        try:
            yield
        finally:
            if self._record:
                self._log_once(f"fingerprint: {self._record.fingerprint}")
                _log.info("pictures: %d of %d known to the index", self._seen_before, self._seen)

    def _with_known(self, item: Item) -> Item:
        """What the index has for a content; it is asked here, not in threads."""
        if self._store is None or item.record.hash is None:
            return item
        known = self._store.vector_of(item.record.hash)
        self._seen += 1
        if known is None:
            return item
        self._seen_before += 1
        record = item.record._replace(damage=self._store.damage_of(item.record.hash))
        return item._replace(record=record, content=None, vector=known)

    def _of_pixels(self, images: Sequence[Image.Image]) -> list[Vectors | UnreadableImageError]:
        if not images:
            return []
        from clipsearch.images.pixels import as_seen
        from clipsearch.index.pipeline import vectors_of

        return vectors_of(self.encoder, self.name, [self.preprocessing(as_seen(image)) for image in images])

    def _pixels(self, content: bytes, name: bytes) -> tuple[npt.NDArray[np.uint8], float]:
        """(H, W, 3) what the model wants to see of a picture, and the share of it that is missing."""
        from clipsearch.index.pipeline import pixels_of

        picture, pixels = pixels_of(self.preprocessing, content, name)
        return pixels, picture.missing

    @cached_property
    def _record(self) -> ModelRecord | None:
        """What the index says of its model.

        Raises:
            ModelError: it says nothing.
        """
        model = self._store.model() if self._store else None
        if self._store and model is None:
            raise ModelError(f"The index in {self._store.folder} names no model.", hint="index-anew")
        return model

    @cached_property
    def _fingerprint(self) -> str:
        if self._record:
            return self._record.fingerprint
        return checked_fingerprint(self._files)

    @cached_property
    def _files(self) -> ModelFiles:
        if self._known_files:
            return self._known_files
        from clipsearch.models.disk.files import locate

        revision = self._record.revision if self._record else None
        return locate(self.name, revision=revision)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What makes pixels of images; needs no torch."""
        from clipsearch.models.preprocessing import Preprocessing

        if self._numpy_tower:
            return self._numpy_tower.preprocessing
        return replace(Preprocessing.load(self._files), exact=self._options["exact"])

    @property
    def _text_encoder(self) -> TextEncoder:
        with self._loading:
            return self._text_tower

    @property
    def encoder(self) -> ImageEngine | Encoder:
        """The image tower, in NumPy or in torch; see `engine`."""
        if self._engine:
            return self._engine  # also while another thread loads torch for it
        with self._loading:
            forced = self._options["engine"] == "numpy"
            if self._encoder_in_torch and not forced:
                return self._encoder_in_torch
            tower = self._numpy_tower
            if tower is None:
                return self._in_torch(why_no_tower(self._options))
            if self._engine is None:
                self._engine = ImageEngine(
                    tower,
                    lambda: self._whole_model,
                    forced=forced,
                    expected=self._expected,
                    batch_size=self._options["batch_size"],
                )
                self._log_once(f"fingerprint: {self._fingerprint}", *self._engine.facts(self._fingerprint))
            return self._engine

    def _in_torch(self, why: str) -> Encoder:
        encoder = self._whole_model
        self._log_once(f"engine: torch ({why})")
        return encoder

    @cached_property
    def _numpy_tower(self) -> ImageTower | None:
        return find_tower(self.name, self._fingerprint, lambda: self._files, self._options)

    @cached_property
    def _text_tower(self) -> TextEncoder:
        """The text tower from the cache, or made once from the model's weights.

        Other text towers than those of CLIP's and SigLIP's kinds are computed by transformers, which has to be loaded
        for each query.
        """
        try:
            tower = tower_cache.load(self._fingerprint)
        except TowerDamagedError as error:
            if not self._known_files:
                messages.check_replaceable(self.name, self._record.revision if self._record else None, error)
            _log.warning(tower_cache.made_anew(self.name, str(error)))
        else:
            if tower:
                self._log_once(f"fingerprint: {self._fingerprint}", messages.texts_in_numpy(self._fingerprint))
                return tower
            from clipsearch.models.disk.files import family

            if family(self._files) in (*LIKE_CLIP, *LIKE_SIGLIP):
                _log.warning(messages.PREPARING, self.name)
        if not self._whole_model.save_text_tower():
            _log.warning(messages.WHOLE_MODEL_NEEDED, self.name)
            self._log_once("texts: in the whole model, through transformers")
            return self._whole_model
        tower = tower_cache.load(self._fingerprint)
        if tower is None:
            raise ModelError(f"The text tower of {self.name!r} vanished from the cache.")
        self._log_once(messages.texts_in_numpy(self._fingerprint))
        return tower

    def keep_towers(self) -> bool:
        """Leave both towers in the cache, where later commands find them; damaged ones are replaced, which is logged.

        Returns:
            False if NumPy cannot compute the text tower.

        Raises:
            ModelError: the model cannot be loaded, or the cache cannot be written.
        """
        from clipsearch.models.in_numpy import image_cache  # it imports Pillow

        if found := tower_cache.damage(self._fingerprint):
            _log.warning(tower_cache.made_anew(self.name, found))
        possible = tower_cache.is_whole(self._fingerprint) or self._whole_model.save_text_tower()
        image_cache.save(self._fingerprint, self._files)
        return possible

    @property
    def _whole_model(self) -> Encoder:
        """Both towers, in torch.

        Raises:
            ModelError: it is not on this disk and cannot be had.
            ModelMismatchError: the model under this name is another one than the index was made with.
        """
        with self._loading_torch:
            if self._encoder_in_torch is None:
                self._encoder_in_torch = self._loaded()
            return self._encoder_in_torch

    def _loaded(self) -> Encoder:
        encoder = load_encoder(self._files, self._options)
        if self._store and self._record and encoder.fingerprint != self._record.fingerprint:
            wanted = f"{self.name} as it is on this disk now"
            raise mismatch(self._store.folder, self._record, wanted)
        reason = "enough for a query" if self._options is FOR_QUERIES else None
        self._log_once(*messages.encoder_loaded(encoder, reason))
        return encoder
