"""What searching and tasks need of a model, and the vector of a picture that somebody names."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Protocol

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.reading import digest, read_image
from clipsearch.index.reading import Store
from clipsearch.models.in_numpy.text_tower import Tokens
from clipsearch.models.logits import Logits
from clipsearch.search.confidence import NegativePrompts
from clipsearch.system.paths import absolute
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from clipsearch.images.box import Box
    from clipsearch.images.finding import ImageFile
    from clipsearch.models.in_numpy.text_tower import Tokens
    from clipsearch.models.logits import Logits

_log = logging.getLogger(__name__)


class EmbeddedImage(NamedTuple):
    """What has become of an image file."""

    file: ImageFile
    vector: Vectors | UnreadableImageError
    """(D,) unit vector, or why there is none."""
    known: bool = False
    """Whether the vector was there already, in an index."""


class Encoders(Protocol):
    """What makes unit vectors of texts and images, of one model: `Embedder`, and what tests have in its place."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def logits(self) -> Logits:
        """What makes probabilities of cosines."""

    def embed_texts(self, texts: list[str]) -> Vectors:
        """(Q, D) unit vectors of Q texts."""

    def image(self, content: bytes, name: bytes, box: Box | None = None) -> Vectors:
        """(D,) the unit vector of an image, or of a part of it, from its file's content and name."""

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        """The (D,) unit vector of each image, or why there is none, in order."""

    def negatives(self) -> NegativePrompts:
        """The neutral prompts that texts are compared with."""


class TextEncoder(Protocol):
    """What turns words into vectors: a `TextTower`, or an `Encoder` where there is none."""

    @property
    def logits(self) -> Logits:
        """What makes probabilities of cosines."""

    @property
    def dim(self) -> int:
        """D, of the vectors."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""

    @property
    def context(self) -> int:
        """Most tokens that fit, start and end included."""

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        """(Q, D) unit vectors of texts that `tokenize` has read."""


def readable_images(
    encoders: Encoders,
    files: Sequence[ImageFile],
    unreadable: list[tuple[bytes, str]],
    progress: Progress = SILENT,
) -> Generator[tuple[int, Vectors], None, None]:
    """The place in `files` and the (D,) unit vector of each image that can be read, in order.

    Path and reason of the others are added to `unreadable`. Close it if it is not read to its end.
    """
    progress.start(len(files))
    with closing(encoders.images(files)) as found:
        for place, (file, result, known) in enumerate(found):
            if isinstance(result, UnreadableImageError):
                unreadable.append((file.path, str(result)))
                progress.advance(1, unreadable=1)
            else:
                yield place, result
                progress.advance(1, known=known)


def vector_of_image(
    store: Store,
    encoders: Encoders,
    image: str | os.PathLike[str] | bytes,
    box: Box | None = None,
) -> Vectors:
    """(D,) of an image, by its path or the content of its file, or of a part of it.

    A whole image whose content the index knows needs no model.

    Raises:
        InputError: it cannot be read, or the box is not within it.
    """
    name = b"" if isinstance(image, bytes) else absolute(image)
    try:
        content = image if isinstance(image, bytes) else read_image(name)
        known = None if box else store.vector_of(digest(content))
        if known is None:
            return encoders.image(content, name, box)
    except UnreadableImageError as error:
        shown = "from standard input" if isinstance(image, bytes) else os.fspath(image)
        raise InputError(f"Cannot read the picture {shown}: {error}") from error
    _log.info("picture: known to the index, so it needs no model")
    if share := store.damage_of(digest(content)):
        warn_of_damage(name, share)
    return known


def warn_of_damage(path: bytes, share: float) -> None:
    """Log that a part of an image is missing that a query names; without a path it came from standard input."""
    from clipsearch.images.missing_share import missing  # no text query needs it

    _log.warning("Damaged: %s: %s", os.fsdecode(path) or "standard input", missing(share))
