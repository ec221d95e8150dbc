"""The protocols of a model that searching and tasks need, and the embedding of images that a caller names."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Protocol

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.codecs.dates import NAME, taken_by_name
from clipsearch.images.reading import digest, read_image
from clipsearch.index.filters import local_time
from clipsearch.index.reading import Store
from clipsearch.models.in_numpy.text_tower import Tokens
from clipsearch.models.logits import Logits
from clipsearch.search.confidence import NegativePrompts
from clipsearch.system.paths import absolute
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from clipsearch.images.codecs.box import Box
    from clipsearch.images.files import ImageFile
    from clipsearch.models.in_numpy.text_tower import Tokens
    from clipsearch.models.logits import Logits

_log = logging.getLogger(__name__)


class EmbeddedImage(NamedTuple):
    """The result of embedding one image file."""

    file: ImageFile
    vector: Vectors | UnreadableImageError
    """(D,) unit vector, or the error if the image cannot be read."""
    known: bool = False
    """Whether the vector was taken from an index."""
    digest: bytes | None = None
    """The hash of the file's content; None if it is unknown."""
    taken_at: str | None = None
    """When it was taken, by its content: ISO 8601 local time; None if the content does not say."""


class Encoders(Protocol):
    """A model that embeds texts and images as unit vectors: an `Embedder`, or a small replacement in tests."""

    @property
    def name(self) -> str:
        """The name of the model."""

    @property
    def logits(self) -> Logits:
        """The logits of the model, which turn cosines into probabilities."""

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Embed Q texts as (Q, D) unit vectors."""

    def image(self, content: bytes, name: bytes, box: Box | None = None) -> Vectors:
        """Embed an image, or its part in `box`, given its file's content and name, as a (D,) unit vector."""

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        """Yield each file with its (D,) unit vector, or with the error if it cannot be read, in order."""

    def negatives(self) -> NegativePrompts:
        """Return the neutral prompts that texts are compared with."""

    def neutral(self) -> Vectors:
        """Return the (V, D) vectors of texts that fit any image."""


class TextEncoder(Protocol):
    """A text tower: a `TextTower`, or an `Encoder` for a model that has none in NumPy."""

    @property
    def logits(self) -> Logits:
        """The logits of the model, which turn cosines into probabilities."""

    @property
    def dim(self) -> int:
        """D, the length of the vectors."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""

    @property
    def context(self) -> int:
        """Largest number of tokens that the tower reads, start and end included."""

    def tokenize(self, text: str) -> Tokens:
        """Tokenise `text` and truncate it to the context."""

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        """Embed Q results of `tokenize` as (Q, D) unit vectors."""


def readable_images(
    encoders: Encoders,
    files: Sequence[ImageFile],
    unreadable: list[tuple[bytes, str]],
    progress: Progress = SILENT,
    *,
    known_contents: dict[int, bytes] | None = None,
    dates: dict[int, str] | None = None,
) -> Generator[tuple[int, Vectors], None, None]:
    """Yield the index in `files` and the (D,) unit vector of each image that can be read, in order.

    Path and reason of the others are appended to `unreadable`. The hashes of contents whose vectors are taken from an
    index are added to `known_contents`, by the index in `files`; and to `dates`, when images were taken, or else their
    files were last changed. A caller that stops early must close the generator.
    """
    progress.start(len(files))
    with closing(encoders.images(files)) as found:
        for place, (file, result, known, digest, taken_at) in enumerate(found):
            if isinstance(result, UnreadableImageError):
                unreadable.append((file.path, str(result)))
                progress.advance(1, unreadable=1)
            else:
                if known and digest is not None and known_contents is not None:
                    known_contents[place] = digest
                if dates is not None:
                    by_name = None if taken_at else taken_by_name(file.path)
                    dates[place] = taken_at or (by_name.at if by_name else local_time(file.mtime_ns))
                yield place, result
                progress.advance(1, known=known)


def vector_of_image(
    stores: Sequence[Store],
    encoders: Encoders,
    image: str | os.PathLike[str] | bytes,
    box: Box | None = None,
) -> Vectors:
    """Return the (D,) unit vector of an image, or of a part of it: from the index, or else by the model.

    Args:
        stores: the opened indexes. They are used for whole images whose content they know.
        encoders: the model of the indexes.
        image: a path, or the content of a file.
        box: the part of the image to embed; None for all of it.

    Raises:
        InputError: the image cannot be read, or the box is not within it.
    """
    name = b"" if isinstance(image, bytes) else absolute(image)
    try:
        content = image if isinstance(image, bytes) else read_image(name)
        known = None if box else _known_vector(stores, digest(content))
        if known is None:
            return encoders.image(content, name, box)
    except UnreadableImageError as error:
        shown = "from standard input" if isinstance(image, bytes) else os.fspath(image)
        raise InputError(f"Cannot read the image {shown}: {error}") from error
    _log.info("picture: known to the index, so it needs no model")
    if share := max(store.damage_of(digest(content)) or 0 for store in stores):
        warn_of_damage(name, share)
    return known


def _known_vector(stores: Sequence[Store], content: bytes) -> Vectors | None:
    found = (store.vector_of(content) for store in stores)
    return next((vector for vector in found if vector is not None), None)


def vector_of_content(stores: Sequence[Store], content: bytes) -> Vectors:
    """Return the (D,) unit vector of an image of the indexes, given the hash of its content.

    Raises:
        InputError: no image in them has this content (any more).
    """
    vector = _known_vector(stores, content)
    if vector is None:
        raise InputError("The picture that was asked for is not in the index any more.")
    return vector


def taken_by_content(store: Store, content: bytes) -> str | None:
    """Return when an image was taken by the content with this hash, which the index knows; None if it does not say."""
    with store.snapshot():
        found = store.rows_with(content)
        record = store.image(found[0][1]) if found else None
    return record.taken_at if record and record.date_source != NAME else None


def warn_of_damage(path: bytes, share: float) -> None:
    """Log that a part of a query's image is missing; an empty path stands for standard input."""
    from clipsearch.images.codecs.missing_share import missing  # imported here because a text query does not need it

    _log.warning("Damaged: %s: %s", os.fsdecode(path) or "standard input", missing(share))
