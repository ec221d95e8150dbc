"""What searching needs of a model, and the vector of a picture that somebody names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.reading import digest, read_picture
from clipsearch.index.reading import Store
from clipsearch.search import telling
from clipsearch.search.confidence import NegativePrompts
from clipsearch.system.paths import absolute

Vectors = npt.NDArray[np.float32]


class Encoders(Protocol):
    """What searching needs of a model."""

    def texts(self, texts: list[str]) -> Vectors:
        """(Q, D) unit vectors of Q texts."""

    def image(self, content: bytes, name: bytes) -> Vectors:
        """(D,) the unit vector of a picture, from its file's content and name."""

    def negatives(self) -> NegativePrompts:
        """The neutral prompts that texts are compared with."""


def vector_of_picture(
    store: Store,
    encoders: Encoders,
    image: str | os.PathLike[str] | bytes,
    tell: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Vectors:
    """(D,) of a picture, by its path or the content of its file; what the index has of this content needs no model.

    `tell` hears that it is known, `say` that it is damaged.

    Raises:
        InputError: it cannot be read.
    """
    name = b"" if isinstance(image, bytes) else absolute(image)
    try:
        content = image if isinstance(image, bytes) else read_picture(name)
        known = store.vector_of(digest(content))
        if known is None:
            return encoders.image(content, name)
    except UnreadableImageError as error:
        shown = "from standard input" if isinstance(image, bytes) else os.fspath(image)
        raise InputError(f"Cannot read the picture {shown}: {error}") from error
    tell(telling.picture_known())
    if share := store.damage_of(digest(content)):
        say(telling.picture_damaged(name, share))
    return known
