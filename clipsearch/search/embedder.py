"""The embedder: texts and images to unit vectors, with one model, whose towers are loaded when they are first needed.

Images whose content an index knows are not embedded again: their vectors are taken from there.
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
from clipsearch.search.encoders import EmbeddedImage, taken_by_content, warn_of_damage
from clipsearch.search.engine import ImageEngine
from clipsearch.search.lazy_model import LazyModel
from clipsearch.system.paths import absolute
from clipsearch.unit import Vectors, are_unit

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer

    from clipsearch.images.codecs.box import Box
    from clipsearch.images.files import ImageFile
    from clipsearch.index.pipeline import Item
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.in_torch.image_encoder import ImageEncoder
    from clipsearch.search.region_ranking import BestRegions

_log = logging.getLogger(__name__)

AnyImage = Union[str, os.PathLike[str], "Image.Image"]
"""An image that the Python API takes: a path, or a Pillow image."""


class Embedder:
    """Embeds texts and images as unit vectors with one model, whose parts are loaded when they are first needed."""

    def __init__(
        self,
        source: Store | ModelFiles,
        *,
        tuned: ModelFiles | None = None,
        why: str | None = None,
        options: EncoderOptions = BY_ITSELF,
    ) -> None:
        """Use the model of an index, or a model on this disk; nothing is loaded yet.

        Args:
            source: The index, whose vectors are used for images that it knows, or the files of the model.
            tuned: The files of a model that embeds images as that of the index does, and is used in its place.
            why: The reason for the choice of this model, for the log.
            options: The device, precision and engine to compute with.
        """
        self._store = source if isinstance(source, Store) else None
        self._model = LazyModel(tuned or source, why=why, options=options)
        self.damaged: list[tuple[bytes, float]] = []
        """Path of each damaged image so far, and the share of it that is missing, in no particular order."""
        self._cut: set[str] = set()
        """Texts that were truncated; each is logged once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store:
            self._store.close()

    @property
    def name(self) -> str:
        """The name of the model, as the user would type it."""
        return self._model.name

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """Name, revision and fingerprint of the model, which an index records."""
        return self._model.identity

    @property
    def files(self) -> ModelFiles:
        """The files of the model on this disk.

        Raises:
            ModelError: the model is not on this disk and cannot be downloaded.
            ModelMismatchError: the model of this name on this disk is not the one that the index was made with.
        """
        return self._model.files

    @property
    def options(self) -> EncoderOptions:
        """The device, precision and engine to compute with."""
        return self._model.options

    @property
    def store(self) -> Store | None:
        """The index from which vectors of known images are taken; None without one."""
        return self._store

    @property
    def uses_index(self) -> bool:
        """Whether vectors of known images are taken from an index."""
        return self._store is not None

    def regions_of(self, contents: Sequence[bytes | None]) -> BestRegions | None:
        """Return the regions of N images, given the hashes of their contents; None if the index has no regions.

        A hash that is None, or that the index does not know, stands for an image without regions.
        """
        if self._store is None:
            return None
        with self._store.snapshot():
            regions = self._store.regions()
            if regions is None or not len(regions.images):
                return None
            from clipsearch.search.region_ranking import BestRegions, RegionRanking

            known = [self._store.rows_with(digest) if digest else [] for digest in contents]
            rows = np.array([min((row for _, row in found), default=-1) for found in known], np.int64)
            matrix, alive = self._store.matrix()
            ranking = RegionRanking(regions, matrix, alive=alive)
            return BestRegions(ranking, rows, ranking.slope_of_words(self.neutral()))

    @property
    def logits(self) -> Logits:
        """The logits of the model, which turn cosines into probabilities."""
        return self._model.text_encoder.logits

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts.

        Args:
            texts: Q texts. A text that is longer than the model's context is truncated, with a warning in the log.

        Returns:
            (Q, D) float32 unit vectors.

        Raises:
            ModelError: the model is not available, or a vector is not finite.
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
        """The engine that embeds images: numpy or torch."""
        encoder = self._model.encoder
        return encoder.name if isinstance(encoder, ImageEngine) else "torch"

    def image(self, content: bytes, name: bytes, box: Box | None = None) -> Vectors:
        """Embed an image, or its part in a box, as a (D,) unit vector, like `index` on this device.

        Args:
            content: The content of the file.
            name: The name of the file, for messages.
            box: The part of the image to embed; None for all of it.

        Raises:
            UnreadableImageError: the content is not an image, or broken.
            InputError: the box is not within the image.
        """
        # Decoded before the model is loaded, so that a file that is no image is refused at once.
        pixels, share = self._pixels(content, name, box)
        if share:
            warn_of_damage(name, share)
        from clipsearch.index.pipeline import vectors_of

        (result,) = vectors_of(self._model.encoder, self.name, [pixels])
        if isinstance(result, UnreadableImageError):
            raise result
        return result

    def embed_images(self, images: Iterable[AnyImage]) -> Vectors:
        """Embed images, like `index` on this device.

        Args:
            images: N paths or Pillow images.

        Returns:
            (N, D) float32 unit vectors; those of images that the index knows are taken from there.

        Raises:
            InputError: an image cannot be read.
            ModelError: the model is not available.
        """
        from clipsearch.images.named_files import named_files

        given = list(images)
        opened = [image for image in given if not isinstance(image, str | os.PathLike)]
        files = list(named_files(absolute(image) for image in given if isinstance(image, str | os.PathLike)))
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
        """Yield the (D,) unit vector of each file, or the error if it cannot be read, in order.

        Reading, decoding and embedding run in parallel. A caller that stops early must close the generator.
        """
        from clipsearch.index.pipeline import embed_images, read_images

        _ = self._model.record  # read now, because a connection to the index belongs to its thread
        if self._store is None:
            self._model.expected = len(files)  # with an index, the number that it lacks is unknown
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
                # A file that was not decoded is known to the index.
                known, digest = item.record.width is None, item.record.hash
                yield EmbeddedImage(item.file, item.vector, known, digest, item.record.taken_at)

    def hidden_states(
        self, images: Iterable[str | os.PathLike[str]], layer: int, *, tokens: str = "patch"
    ) -> npt.NDArray[np.float32]:
        """Compute the hidden states of a layer of the image tower.

        Args:
            images: N paths.
            layer: numbered like `hidden_states` of transformers: 0 is the input of the first layer, -1 the last output.
            tokens: "patch" for the patches, "cls" for the class token, or "all", the class token first.

        Returns:
            (N, T, W) float32 hidden states.

        Raises:
            InputError: an image cannot be read, there is no image, or the model has no such layer or token.
            ModelError: the model is not available, or its image tower is neither CLIP's nor SigLIP's.
        """
        from clipsearch.images.named_files import named_files
        from clipsearch.search.inner_layers import all_hidden_states

        return all_hidden_states(self.image_tower, list(named_files(map(absolute, images))), layer, tokens)

    def text_map(self, image: AnyImage, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Compute where in an image texts fit.

        Args:
            image: A path, or a Pillow image.
            texts: M texts.

        Returns:
            (M, H, W) float32 cosines of the texts with H x W patches of the part of the image that the model sees: for
            most models the square in its centre.

        Raises:
            InputError: the image cannot be read.
            ModelError: the model is not available, or its image tower is neither CLIP's nor SigLIP's.
        """
        from clipsearch.images.codecs.pixels import as_seen
        from clipsearch.images.reading import read_image
        from clipsearch.search.text_maps import map_of

        tower = self.image_tower
        if isinstance(image, str | os.PathLike):
            name = absolute(image)
            try:
                pixels, _ = self._pixels(read_image(name), name, None)
            except UnreadableImageError as error:
                raise InputError(f"Cannot read the image {image}: {error}") from error
        else:
            pixels = tower.preprocessing(as_seen(image))
        return map_of(tower, pixels, self.embed_texts(texts), self.name)

    @property
    def image_tower(self) -> ImageTower:
        """The image tower in NumPy, which gives access to its layers.

        Raises:
            ModelError: the model or the options are not supported in NumPy.
        """
        return self._model.numpy_tower

    def images_in_torch(self) -> ImageEncoder:
        """Load the image tower in torch, through which gradients flow.

        Raises:
            ModelError: the model is not available.
        """
        return self._model.images_in_torch()

    def negatives(self) -> NegativePrompts:
        """Return the neutral prompts that texts are compared with."""
        encoder = self._model.text_encoder
        if encoder.logits.bias is not None:
            return NegativePrompts(np.empty((0, encoder.dim), np.float32), 0, encoder.logits)
        return NegativePrompts(self.neutral(), len(NEUTRAL), encoder.logits)

    def neutral(self) -> Vectors:
        """Return the (8, D) vectors of texts that fit any image."""
        dim = self._model.text_encoder.dim
        return tower_cache.remembered(self._model.fingerprint, NEUTRAL, dim, self.embed_texts)

    def tokenize(self, text: str) -> Tokens:
        """Tokenise `text` and truncate it to the context."""
        return self._model.text_encoder.tokenize(text)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return self._model.text_encoder.tokenizer

    @property
    def context(self) -> int:
        """Largest number of tokens that the text tower reads, start and end included."""
        return self._model.text_encoder.context

    # -- how -------------------------------------------------------------------------------------------------

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the images embedded within this context, and log at its end how many the index knew."""
        self._seen = self._seen_before = 0
        try:
            yield
        finally:
            if self._store:
                self._model.log_once(f"fingerprint: {self._model.fingerprint}")
                _log.info("pictures: %d of %d known to the index", self._seen_before, self._seen)

    def _with_known(self, item: Item) -> Item:
        """Add the vector that the index has for a content. The index is read here, in its own thread."""
        if self._store is None or item.record.hash is None:
            return item
        known = self._store.vector_of(item.record.hash)
        self._seen += 1
        if known is None:
            return item
        self._seen_before += 1
        damage, taken_at = self._store.damage_of(item.record.hash), taken_by_content(self._store, item.record.hash)
        record = item.record._replace(damage=damage, taken_at=taken_at)
        return item._replace(record=record, content=None, vector=known)

    def _of_pixels(self, images: Sequence[Image.Image]) -> list[Vectors | UnreadableImageError]:
        if not images:
            return []
        from clipsearch.images.codecs.pixels import as_seen
        from clipsearch.index.pipeline import vectors_of

        model = self._model
        return vectors_of(model.encoder, model.name, [model.preprocessing(as_seen(image)) for image in images])

    def _pixels(self, content: bytes, name: bytes, box: Box | None) -> tuple[npt.NDArray[np.uint8], float]:
        """Return the (H, W, 3) pixels that the model takes of an image, and the share of the image that is missing."""
        from clipsearch.index.pipeline import pixels_of

        decoded, pixels = pixels_of(self._model.preprocessing, content, name, box=box)
        return pixels, decoded.missing
