"""What an update of an index needs of a model, as protocols, so that no model library is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clipsearch.index.format import Computed, ModelRecord

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from clipsearch.index.writing import Writer

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) pixels of one preprocessed image, not yet normalised."""


class Preprocessing(Protocol):
    """The preprocessing of a model, which several threads may call."""

    @property
    def side(self) -> int | None:
        """Length of the shorter side of preprocessed images in pixels; None if they keep their proportions."""

    @property
    def enough(self) -> int | None:
        """The least number of pixels on each side of a decoded image; None if it is needed in full."""

    def __call__(self, image: Image.Image, box: tuple[float, float, float, float]) -> Pixels:
        """Return the (H, W, 3) pixels of `image` cropped to `box` (left, upper, right, lower edge)."""


class ImageEncoder(Protocol):
    """The image tower of a loaded model."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images."""

    @property
    def batch_size(self) -> int:
        """The best number of images for `encode_images`; it may decrease."""

    @property
    def calls(self) -> int:
        """The best number of simultaneous calls of `encode_images`."""

    @property
    def is_loading(self) -> bool:
        """Whether `encode_images` would wait for a model that another thread is loading."""

    def divide_cores(self) -> None:
        """Divide the cores between `calls` simultaneous calls, instead of giving all cores to each."""

    def encode_images(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Embed B images of (H, W, 3) pixels as (B, D) unit vectors."""


class ImageModel(Protocol):
    """A model whose image tower is loaded on first use."""

    @property
    def name(self) -> str:
        """The name of the model, as the user would type it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images, which may be available before the tower is loaded."""

    @property
    def encoder(self) -> ImageEncoder:
        """The image tower, loaded on first use."""


class LoadedModel(NamedTuple):
    """An `ImageModel` that is loaded, with the record of it for an index."""

    encoder: ImageEncoder
    record: ModelRecord

    @property
    def name(self) -> str:
        """The name of the model, as the user would type it."""
        return self.record.name

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images."""
        return self.encoder.preprocessing

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Do nothing, because the model is chosen already."""

    def side(self) -> int | None:
        """Return the length of the shorter side of the images that the model is given, as `Preprocessing.side`."""
        return self.preprocessing.side

    def load(self, expected: int) -> LoadedModel:  # noqa: ARG002  (as `IndexModel` has it)
        """Return itself, so that it can be used as an `IndexModel`."""
        return self

    def computed(self) -> Computed | None:
        """Return None, because the caller who loaded the model knows."""


class IndexModel(Protocol):
    """The model of an index that is updated, loaded when it is first needed."""

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Decide which model to use for `index`, which records the model `known`, before `folders` are searched.

        Raises:
            ModelMismatchError: the index holds vectors of another model than the one asked for.
        """

    def side(self) -> int | None:
        """Return the length of the shorter side of the images that the model is given, as `Preprocessing.side`.

        Raises:
            ClipsearchError: the model is not available.
        """

    def load(self, expected: int) -> LoadedModel:
        """Load the model for about `expected` images.

        Raises:
            ClipsearchError: the model is not available.
        """

    def computed(self) -> Computed | None:
        """Describe how the model computes, for the record in the index; None if it was not loaded or it is unknown."""
