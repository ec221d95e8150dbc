"""Preprocessing of a decoded image to the pixels that an image tower is given, by the model's own configuration.

The steps are those of transformers' Pillow image processors: resize, centre crop, and later, for a whole batch, the
normalisation. With `exact` the pixels are the same; otherwise it takes shortcuts, and single levels may differ. It
needs no torch, so it runs in the decoding threads, and pixels stay uint8 until they are normalised.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.disk.open_clip import CONFIG, Checkpoint

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""

_LONGEST = 50
"""Largest ratio of the sides of an image that is resized whole; of a longer image only the middle is resized."""
REDUCING_GAP = 3.0
"""Pillow's `reducing_gap`: an image more than this factor larger than its target is first averaged down to that."""
ENOUGH = 2.8
"""Factor by which a decoded image has to be larger than what it will be resized to. With 2, cosines to the vectors of
photos decoded in full fell to 0.985; with 2.8 they stay above 0.9999."""
_FILES = ("preprocessor_config.json", "processor_config.json")
_FLEXIBLE = "Siglip2"
"""Start of the names of image processors that keep the proportions of images."""
_LEAST_SCALE, _MOST_SCALE, _CLOSE = 1e-6, 100.0, 1e-5
"""Bounds and tolerance of the search for a size: those of transformers, so that sizes are the same."""


class Patches(NamedTuple):
    """Resize that roughly keeps proportions and gives a limited number of square patches (SigLIP 2's NaFlex)."""

    side: int
    """Side of a patch in pixels."""
    most: int
    """Largest number of patches."""

    def size(self, width: float, height: float) -> tuple[int, int]:
        """Return the width and height in pixels, multiples of `side`, that an image of this size is resized to."""

        def at(scale: float) -> tuple[int, int]:
            return self._whole(width * scale), self._whole(height * scale)

        low, high = _LEAST_SCALE, _MOST_SCALE
        while high - low >= _CLOSE:
            middle = (low + high) / 2
            columns, rows = at(middle)
            if columns * rows <= self.most:
                low = middle
            else:
                high = middle
        columns, rows = at(low)
        return columns * self.side, rows * self.side

    def _whole(self, length: float) -> int:
        return max(1, math.ceil(length / self.side))

    def cut(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Cut (H, W, 3) pixels into (T, side * side * 3) patches, row by row; the order within a patch stays."""
        rows, columns = pixels.shape[0] // self.side, pixels.shape[1] // self.side
        cut = pixels.reshape(rows, self.side, columns, self.side, 3).transpose(0, 2, 1, 3, 4)
        return cut.reshape(rows * columns, -1)


@dataclass(frozen=True)
class Preprocessing:
    """One model's resize, crop and normalisation."""

    resize: int | tuple[int, int] | Patches | None
    """Length of the shorter side or (height, width), in pixels, or a number of patches; None leaves the size."""
    crop: tuple[int, int] | None
    """(height, width) in pixels that is cut from the centre; None for no crop."""
    resample: Image.Resampling
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    exact: bool = False
    """Whether to do without shortcuts, so that pixels equal those of transformers."""
    half_to_even: bool = False
    """Whether a crop that cannot be centred exactly begins at the even one of the two positions, as in torchvision for
    open_clip; otherwise it begins at the first."""

    @classmethod
    def load(cls, files: ModelFiles) -> Preprocessing:
        """Read a model's preprocessing from its files.

        Raises:
            ModelError: the configuration is missing, or asks for steps that are not supported.
        """
        path, config = _read(files)
        try:
            kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIP")
            flexible = kind.startswith(_FLEXIBLE)
            crops = config.get("do_center_crop", "CLIP" in kind and not flexible)
            crop = _sides(config.get("crop_size", 224)) if crops else None
            size = config.get("size", 224) if config.get("do_resize", True) else None
            resize = _patches(config) if flexible else _resize_to(size)
            if crop is None and not isinstance(resize, tuple):
                raise ModelError(
                    f"{path}: pictures come out in different sizes; clipsearch needs a crop or a fixed size."
                )
            return cls(
                resize=resize,
                crop=crop if isinstance(crop, tuple) or crop is None else (crop, crop),
                resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
                scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
                mean=_three(config["image_mean"]) if config.get("do_normalize", True) else (0.0, 0.0, 0.0),
                std=_three(config["image_std"]) if config.get("do_normalize", True) else (1.0, 1.0, 1.0),
                half_to_even=config.get("crop_offset") == "half_to_even",
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: not the preprocessing of a CLIP model ({error!r}).") from error

    def to_json(self) -> dict[str, Any]:
        """Return values that can be written as JSON and read by `from_json`."""
        return {**asdict(self), "patches": isinstance(self.resize, Patches)}

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Preprocessing:
        """Restore what `to_json` returned, also after a trip through JSON, which has neither tuples nor filters.

        Raises:
            TypeError, ValueError: `written` is something else.
        """
        values: dict[str, Any]
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}
        if values.pop("patches"):
            values["resize"] = Patches(*values["resize"])
        return cls(**values | {"resample": Image.Resampling(values["resample"])})

    @property
    def seen(self) -> tuple[int, int] | None:
        """Height and width of every preprocessed image in pixels; None where images keep their proportions."""
        return self.crop or (None if isinstance(self.resize, Patches) else cast("tuple[int, int]", self.resize))

    @property
    def side(self) -> int | None:
        """Shorter side of every preprocessed image in pixels; None where images keep their proportions."""
        return None if self.seen is None else min(self.seen)

    @property
    def enough(self) -> int | None:
        """Least length of both sides of a decoded image in pixels; None if the image is needed in full."""
        if self.exact or self.resize is None:
            return None
        if isinstance(self.resize, Patches):  # enough for a square of patches; a longer image is not higher
            return math.ceil(ENOUGH * self.resize.side * math.sqrt(self.resize.most))
        return math.ceil(ENOUGH * (self.resize if isinstance(self.resize, int) else max(self.resize)))

    def __call__(self, image: Image.Image, box: Box | None = None) -> npt.NDArray[np.uint8]:
        """Preprocess an RGB image of any size, or the part of it in `box`, to (H, W, 3) uint8."""
        if self.resize is None or self.exact:  # `enough` is None then, so the image was decoded in full
            return self._in_full(image)
        left, top, right, bottom = box or (0, 0, image.width, image.height)
        # Only what the crop keeps is resized. The filter still reads beyond its edges, so the pixels are the same.
        size = self._target(right - left, bottom - top)
        crop = size if self.crop is None else (min(self.crop[1], size[0]), min(self.crop[0], size[1]))
        part = self.part_seen(right - left, bottom - top)
        start = left + max(part[0], 0), top + max(part[1], 0)
        end = min(left + part[2], right), min(top + part[3], bottom)
        resized = image.resize(crop, self.resample, start + end, REDUCING_GAP)
        return np.asarray(resized if self.crop in (None, crop[::-1]) else self._centre(resized, *self.crop))

    def part_seen(self, width: float, height: float) -> Box:
        """Return the part of an image of `width` x `height` pixels that the model sees.

        A centre crop cuts the rest off. Where the crop is larger than the resized image, the part is larger than the
        image.
        """
        full = self._target(width, height)
        crop = full if self.crop is None else self.crop[::-1]
        x, y = width / full[0], height / full[1]
        left, top = self._half(full[0] - crop[0]) * x, self._half(full[1] - crop[1]) * y
        return left, top, left + crop[0] * x, top + crop[1] * y

    def _in_full(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        if isinstance(self.resize, int):
            image = self._middle(image)
        if self.resize is not None:
            image = image.resize(self._target(*image.size), self.resample)
        if self.crop is not None:
            image = self._centre(image, *self.crop)
        return np.asarray(image)

    def _target(self, width: float, height: float) -> tuple[int, int]:
        """Return the width and height that an image of this width and height is resized to."""
        if isinstance(self.resize, Patches):
            return self.resize.size(width, height)
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        if self.resize is None:
            return int(width), int(height)
        short = self.resize
        # transformers rounds down.
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short

    def _middle(self, image: Image.Image) -> Image.Image:
        """Cut a very long image to the part that the crop can keep, with a wide margin.

        Resizing all of 1 x 60,000 pixels would take gigabytes.
        """
        longest = _LONGEST * min(image.size)
        if max(image.size) <= longest:
            return image
        return self._centre(image, min(image.height, longest), min(image.width, longest))

    def _centre(self, image: Image.Image, height: int, width: int) -> Image.Image:
        """Cut out the centre of `image`, filled up with black where the image is too small."""
        left, top = self._half(image.width - width), self._half(image.height - height)
        return image.crop((left, top, left + width, top + height))

    def _half(self, surplus: int) -> int:
        return round(surplus / 2) if self.half_to_even else surplus // 2


def _read(files: ModelFiles) -> tuple[Path, dict[str, Any]]:
    """Return the file with the preprocessing, and its content in the terms of preprocessor_config.json."""
    if files.layout == "open_clip":
        return files.folder / CONFIG, Checkpoint.load(files.folder).preprocessing()
    for name in _FILES:
        path = files.folder / name
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ModelError(f"{path} cannot be read: {error}. Copy the model folder again.") from error
        config = config.get("image_processor", config)
        if isinstance(config, dict) and "image_mean" in config:
            return path, config
    raise ModelError(
        f"{files.folder} does not say how pictures are prepared: {_FILES[0]} is missing. Copy the whole model folder."
    )


def _sides(size: Any) -> int | tuple[int, int]:  # noqa: ANN401  (JSON: a number or an object)
    return (int(size["height"]), int(size["width"])) if isinstance(size, dict) else int(size)


def _resize_to(size: Any) -> int | tuple[int, int] | None:  # noqa: ANN401  (JSON: a number or an object)
    if size is None:
        return None
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    return _sides(size)


def _patches(config: dict[str, Any]) -> Patches:
    return Patches(int(config["patch_size"]), int(config["max_num_patches"]))


def _three(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
