"""A model at work: texts, tokens and pictures to vectors. Each tower is loaded when it is first asked for.

Texts need no torch where the model's text tower is CLIP's, and pictures that an index knows need no model at all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Self, Union

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.index.reading import Store
from clipsearch.models.encoder_options import BY_ITSELF, EncoderOptions
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.text_tower import Tokens
from clipsearch.models.logits import Logits
from clipsearch.search import messages
from clipsearch.search.confidence import NEUTRAL, NegativePrompts
from clipsearch.search.encoders import EmbeddedImage, warn_of_damage
from clipsearch.search.engine import ImageEngine
from clipsearch.search.lazy_model import LazyModel
from clipsearch.system.paths import absolute
from clipsearch.unit import Vectors, are_unit

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer

    from clipsearch.images.box import Box
    from clipsearch.images.finding import ImageFile
    from clipsearch.index.pipeline import Item
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.in_numpy.image_tower import ImageTower

_log = logging.getLogger(__name__)

AnyImage = Union[str, os.PathLike[str], "Image.Image"]
"""A path, or a Pillow image."""


class Embedder:
    """Makes unit vectors of texts and images with one model, and loads of it what is needed when it is first needed."""

    def __init__(
        self, source: Store | ModelFiles, *, why: str | None = None, options: EncoderOptions = BY_ITSELF
    ) -> None:
        """The model of an index, whose vectors are used for pictures that it knows, or a model on this disk.

        Args:
            source: The index, or the files of the model.
            why: What made somebody choose this model.
            options: How it is to compute.
        """
        self._store = source if isinstance(source, Store) else None
        self._model = LazyModel(source, why=why, options=options)
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
        return self._model.name

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """Name, revision and fingerprint: what an index records of a model."""
        return self._model.identity

    @property
    def uses_index(self) -> bool:
        """Whether an index is asked for pictures first."""
        return self._store is not None

    @property
    def logits(self) -> Logits:
        """What makes probabilities of cosines."""
        return self._model.text_encoder.logits

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts.

        Args:
            texts: Q of them. What does not fit into the model's context is cut off, and that is logged.

        Returns:
            (Q, D) float32 unit vectors.

        Raises:
            ModelError: the model makes none.
        """
        tokens = [self._model.text_encoder.tokenize(text) for text in texts]
        for text, (read, _, cut) in zip(texts, tokens, strict=True):
            if cut is not None and text not in self._cut:
                self._cut.add(text)
                _log.warning(messages.CUT, *messages.around(read, cut))
        vectors = self._model.text_encoder.encode_tokens(tokens)
        sound = are_unit(vectors)
        if not sound.all():
            raise messages.no_vector(self.name, texts[int(sound.argmin())])
        return vectors

    @property
    def engine(self) -> str:
        """What embeds images, or would: numpy or torch."""
        encoder = self._model.encoder
        return encoder.name if isinstance(encoder, ImageEngine) else "torch"

    def image(self, content: bytes, name: bytes, box: Box | None = None) -> Vectors:
        """(D,) the unit vector of an image, as `index` would make it on this device, or of the part in a box.

        Raises:
            UnreadableImageError: it is no image, or broken.
            InputError: the box is not within it.
        """
        # Before the model is loaded: what is no picture is refused at once.
        pixels, share = self._pixels(content, name, box)
        if share:
            warn_of_damage(name, share)
        from clipsearch.index.pipeline import vectors_of

        (result,) = vectors_of(self._model.encoder, self.name, [pixels])
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
        vectors = [
            next(of_files).vector if isinstance(image, str | os.PathLike) else next(of_opened) for image in given
        ]
        of_files.close()
        for image, vector in zip(given, vectors, strict=True):
            if isinstance(vector, UnreadableImageError):
                raise InputError(f"Cannot read the image {image}: {vector}")
        sound = [vector for vector in vectors if not isinstance(vector, UnreadableImageError)]
        return np.stack(sound) if sound else np.empty((0, self._model.text_encoder.dim), np.float32)

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        """The (D,) unit vector of each picture, or why there is none, in order.

        Reading, decoding and the model work at the same time. Close it if it is not read to its end.
        """
        from clipsearch.index.pipeline import embed_images, read_images

        _ = self._model.record  # asked here: the index belongs to this thread
        if self._store is None:
            self._model.expected = len(files)  # with an index, nobody knows how many it lacks
        with (
            self._counting(),
            closing(read_images(files)) as contents,
            closing(embed_images(map(self._with_known, contents), self._model, total=len(files))) as batches,
        ):
            for item in chain.from_iterable(batch.items for batch in batches):
                if item.vector is None:
                    yield EmbeddedImage(item.file, UnreadableImageError(str(item.record.error)))
                    continue
                if item.record.damage:
                    self.damaged.append((item.file.path, item.record.damage))
                # What was not decoded is what the index knew.
                yield EmbeddedImage(item.file, item.vector, known=item.record.width is None)

    def hidden_states(
        self, images: Iterable[str | os.PathLike[str]], layer: int, *, tokens: str = "patch"
    ) -> npt.NDArray[np.float32]:
        """Compute what a layer of the image tower makes of images.

        Args:
            images: N paths.
            layer: as transformers counts `hidden_states`: 0 is what the first layer is given, -1 what the last makes.
            tokens: "patch" for the patches, "cls" for the class token, or "all", the class token first.

        Returns:
            (N, T, W) float32.

        Raises:
            InputError: an image cannot be read, there are none, or there is no such layer or token.
            ModelError: the model cannot be had, or is not of CLIP's or SigLIP's kind.
        """
        from clipsearch.images.finding import named_file
        from clipsearch.search.inner_layers import all_hidden_states

        return all_hidden_states(self.image_tower, [named_file(absolute(path)) for path in images], layer, tokens)

    @property
    def image_tower(self) -> ImageTower:
        """The image tower in NumPy, of which layers can be looked into.

        Raises:
            ModelError: NumPy cannot compute it, or not as the options want it.
        """
        return self._model.numpy_tower

    def negatives(self) -> NegativePrompts:
        """The neutral prompts that texts are compared with."""
        encoder = self._model.text_encoder
        if encoder.logits.bias is not None:
            return NegativePrompts(np.empty((0, encoder.dim), np.float32), 0, encoder.logits)
        vectors = tower_cache.remembered(self._model.fingerprint, NEUTRAL, encoder.dim, self.embed_texts)
        return NegativePrompts(vectors, len(NEUTRAL), encoder.logits)

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""
        return self._model.text_encoder.tokenize(text)

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""
        return self._model.text_encoder.tokenizer

    @property
    def context(self) -> int:
        """Most tokens that the text tower reads, start and end included."""
        return self._model.text_encoder.context

    # -- how -------------------------------------------------------------------------------------------------

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Within: pictures are embedded; at the end it is told how many the index knew."""
        self._seen = self._seen_before = 0
        try:
            yield
        finally:
            if self._model.record:
                self._model.log_once(f"fingerprint: {self._model.record.fingerprint}")
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

        model = self._model
        return vectors_of(model.encoder, model.name, [model.preprocessing(as_seen(image)) for image in images])

    def _pixels(self, content: bytes, name: bytes, box: Box | None) -> tuple[npt.NDArray[np.uint8], float]:
        """(H, W, 3) what the model wants to see of a picture, and the share of it that is missing."""
        from clipsearch.index.pipeline import pixels_of

        picture, pixels = pixels_of(self._model.preprocessing, content, name, box=box)
        return pixels, picture.missing
