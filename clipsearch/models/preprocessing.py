"""From a decoded picture to the pixels that an image tower sees, as the model's own configuration says.

Equal to transformers' Pillow image processor for CLIP: resize, centre crop, and later, in the batch, the
normalisation. Needs no torch, so it runs in the decoding threads; up to there pixels stay uint8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch.errors import ModelError

_LONGEST = 50
"""Of longer pictures, in multiples of their width or height, only the middle is resized."""
_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Preprocessing:
    """One model's resize, crop and normalisation."""

    resize: int | tuple[int, int] | None
    """Length of the shorter side, or (height, width), in pixels; None leaves the size."""
    crop: tuple[int, int] | None
    """(height, width) cut from the centre."""
    resample: Image.Resampling
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def load(cls, folder: Path) -> Preprocessing:
        """Read a model folder's preprocessing.

        Raises:
            ModelError: it is missing, or asks for steps other than CLIP's.
        """
        path, config = _read(folder)
        crop = _sides(config.get("crop_size", 224)) if config.get("do_center_crop", True) else None
        size = config.get("size", 224) if config.get("do_resize", True) else None
        if crop is None and not isinstance(_resize_to(size), tuple):
            raise ModelError(f"{path}: pictures come out in different sizes; clipsearch needs a crop or a fixed size.")
        try:
            return cls(
                resize=_resize_to(size),
                crop=crop if isinstance(crop, tuple) or crop is None else (crop, crop),
                resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
                scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
                mean=_three(config["image_mean"]) if config.get("do_normalize", True) else (0.0, 0.0, 0.0),
                std=_three(config["image_std"]) if config.get("do_normalize", True) else (1.0, 1.0, 1.0),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: not the preprocessing of a CLIP model ({error!r}).") from error

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 from an RGB picture of any size."""
        if isinstance(self.resize, int):
            image = _middle(image)
        if self.resize is not None:
            image = image.resize(self._target(image), self.resample)
        if self.crop is not None:
            image = _centre(image, *self.crop)
        return np.asarray(image)

    def _target(self, image: Image.Image) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        short = self.resize or 0
        # Rounded down, as transformers does it.
        if image.width <= image.height:
            return short, int(short * image.height / image.width)
        return int(short * image.width / image.height), short


def _middle(image: Image.Image) -> Image.Image:
    """The part of a very long picture that the crop can see, with a wide margin.

    Resized whole, a line of 1 x 60,000 pixels would take gigabytes.
    """
    longest = _LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    return _centre(image, min(image.height, longest), min(image.width, longest))


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """The centre of `image`, on black where it is too small."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _read(folder: Path) -> tuple[Path, dict[str, Any]]:
    for name in _FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ModelError(f"{path} cannot be read: {error}. Copy the model folder again.") from error
        config = config.get("image_processor", config)
        if "image_mean" in config:
            return path, config
    raise ModelError(
        f"{folder} does not say how pictures are prepared: {_FILES[0]} is missing. Copy the whole model folder."
    )


def _sides(size: Any) -> int | tuple[int, int]:  # noqa: ANN401  (JSON: a number or an object)
    return (int(size["height"]), int(size["width"])) if isinstance(size, dict) else int(size)


def _resize_to(size: Any) -> int | tuple[int, int] | None:  # noqa: ANN401  (JSON: a number or an object)
    if size is None:
        return None
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    return _sides(size)


def _three(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
