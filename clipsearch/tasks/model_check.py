"""Checks that a model on this disk gives its published numbers, also through the shortcuts of this package.

The module uses neither an index nor the network: a model that is not on this disk is not checked.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, ModelError, UnreadableImageError
from clipsearch.models.disk.files import ModelFiles, check, check_architecture, find_local, verify
from clipsearch.models.disk.golden_values import DRAWN, KNOWN, Features, KnownImage, KnownValues, PairLogits, Pixels
from clipsearch.models.disk.names import canonical, without_revision
from clipsearch.models.in_numpy import tower_cache
from clipsearch.unit import Array

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.in_torch.reference import Plain
    from clipsearch.models.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

AS_EXPECTED, DIFFERS, NOT_RUN = "as expected", "differs", "not run"
"""The results of a check."""

NONE_KNOWN = "none published that we know of"
_SENTENCES = (
    "a photo of a man",
    "Two RED cars, on a beach (at night)!",
    "눈 속에서 자는 강아지",
    "ein schlafender Hund im Schnee",
    "夜のビーチ",
    "собака спит",
    "🐕 💤 ❄️",
    "a dog and a cat and a horse and a cow and a rabbit on a meadow " * 12,
)
"""Test sentences in several scripts, and one that is longer than the context of every model."""
_TOLERANCE, _TOLERANCE_OF_SUM, _TOLERANCE_OF_LOGITS = 1e-3, 1e-2, 1e-2
"""Tolerances for known values: machines round differently, and JPEG decoders differ by one level."""
_SAME_PIXELS, _SAME_VECTORS = 1e-5, 2e-5
"""Tolerances for shortcuts in float32: the difference of a normalised pixel, and of a component of a unit vector."""


class Check(NamedTuple):
    """One comparison."""

    what: str
    result: str
    """`AS_EXPECTED`, `DIFFERS` or `NOT_RUN`."""
    expected: str
    got: str
    note: str
    """The source of the expected value, or why the check was not run."""
    hint: str | None = None
    """Key of the hint what to do about it, as in an error; its only fact is the model."""


@dataclass(frozen=True)
class Report:
    """The results of all checks of a model."""

    model: str
    revision: str | None
    known: str
    """The source of its known values, or `NONE_KNOWN`."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return all(check.result != DIFFERS for check in self.checks)


def check_model(name: str, images: Path | None = None) -> Report:
    """Check a model in float32 on the CPU, without network.

    Args:
        name: the name of a model that is on this disk.
        images: a folder with the images that have known values, which are recognised by their content. Checks whose
            image is not found are not run.

    Raises:
        InputError: `images` is not a readable folder.
        ModelError: there is no such model, it is not on this disk, or it cannot be loaded.
    """
    if images is not None and not (images.is_dir() and os.access(images, os.R_OK)):
        raise InputError(f"{images} is no folder that can be read. Name the one that holds the known images.")
    files = _on_disk(name)
    known = KNOWN.get(without_revision(files.name))
    whole = _files_are_whole(files)
    if whole.result == DIFFERS:
        checks: Sequence[Check] = [whole]  # the numbers of damaged weights mean nothing
    else:
        check(files)
        check_architecture(files)
        _log.warning("Computing with %r in float32, twice: with shortcuts and without.", files.name)
        checks = [whole, *_Comparison(files, known or KnownValues(NONE_KNOWN), images).run()]
    return Report(files.name, files.revision, known.source if known else NONE_KNOWN, tuple(checks))


def _on_disk(name: str) -> ModelFiles:
    files = find_local(name)
    if files is None:
        name = canonical(name)
        raise ModelError(f"Model {name!r} is not on this disk.", hint="pull", model=name)
    return files


def _files_are_whole(files: ModelFiles) -> Check:
    found = verify(files)
    damaged = [file.name for file in found if file.whole is False]
    unknown = sum(file.whole is None for file in found)
    if damaged:
        return Check("files", DIFFERS, "the hub's hashes", f"damaged: {', '.join(damaged)}", "", "pull-again")
    if unknown == len(found):
        return Check("files", NOT_RUN, "", "", "not in the hub's cache: nothing says what they should contain")
    return Check("files", AS_EXPECTED, "the hub's hashes", f"{len(found)} files whole", "")


class _Ours(NamedTuple):
    """The output of this package's own code for the test images and sentences, in float32."""

    pixels: Array | None
    """(B, 3, H, W) normalised pixels; None for a model whose inputs have different shapes."""
    images: Array
    texts: Array | None
    """(Q, D) from the text tower in NumPy; None if the model has none."""


class _Comparison:
    """The checks of a model, in sequence, so that there is never more than one copy of its weights in memory."""

    def __init__(self, files: ModelFiles, known: KnownValues, folder: Path | None) -> None:
        self._files, self._known, self._folder = files, known, folder
        self._images = _found(known, folder)

    def run(self) -> Iterator[Check]:
        from clipsearch.models.in_torch.encoder import Encoder
        from clipsearch.models.in_torch.reference import Plain

        encoder = Encoder(self._files, "cpu", "fp32", exact=True)
        yield _cached_tower(encoder)
        yield from self._tokens(encoder)
        yield from (self._pixels(encoder, one) for one in self._known.pixels)
        yield from (self._logits(encoder, one) for one in self._known.logits)
        ours = _ours(encoder)
        del encoder
        plain = Plain(self._files)
        yield from (self._features(plain, one) for one in self._known.features)
        if self._known.source == NONE_KNOWN:
            yield Check("known values", NOT_RUN, "", "", NONE_KNOWN)
        yield from _shortcuts(ours, plain)

    def _tokens(self, encoder: Encoder) -> Iterator[Check]:
        for known in self._known.tokens:
            ids = tuple(encoder.tokenize(known.text).ids)
            yield self._check(f"tokens of {known.text!r}", ids == known.ids, _ids(known.ids), _ids(ids))

    def _pixels(self, encoder: Encoder, known: Pixels) -> Check:
        what = f"pixels of {known.image.name}"
        image = self._images.get(known.image)
        if image is None:
            return self._missing(what, known.image)
        preprocessing = encoder.preprocessing
        levels = hashlib.sha256(preprocessing(image).tobytes()).hexdigest()
        normal = np.allclose([*preprocessing.mean, *preprocessing.std], [*known.mean, *known.std], rtol=0, atol=1e-6)
        return self._check(
            what,
            levels == known.sha256 and normal,
            _described(known.sha256, known.mean, known.std),
            _described(levels, preprocessing.mean, preprocessing.std),
        )

    def _logits(self, encoder: Encoder, known: PairLogits) -> Check:
        what = f"logits of {known.image.name} with {', '.join(map(repr, known.texts))}"
        image = self._images.get(known.image)
        if image is None:
            return self._missing(what, known.image)
        vector = encoder.encode_images([encoder.preprocessing(image)])[0]
        logits = encoder.logits.of(encoder.encode_texts(known.texts) @ vector)
        same = np.allclose(logits, known.logits, rtol=0, atol=_TOLERANCE_OF_LOGITS)
        return self._check(what, same, _numbers(known.logits), _numbers(logits))

    def _features(self, plain: Plain, known: Features) -> Check:
        if isinstance(known.of, str):
            what = f"text features of {known.of!r}"
            features = plain.text_features([known.of])[0]
        else:
            what = f"image features of {known.of.name}"
            image = self._images.get(known.of)
            if image is None:
                return self._missing(what, known.of)
            features = plain.image_features([image])[0]
        first, total = features[: len(known.first)], float(features.sum(dtype=np.float64))
        same = np.allclose(first, known.first, rtol=0, atol=_TOLERANCE)
        same = same and abs(total - known.total) <= _TOLERANCE_OF_SUM
        return self._check(
            what,
            same,
            f"{_numbers(known.first)} ... sum {known.total:.4f}",
            f"{_numbers(first)} ... sum {total:.4f}",
        )

    def _check(self, what: str, same: bool, expected: str, got: str) -> Check:  # noqa: FBT001  (its one result)
        return Check(what, AS_EXPECTED if same else DIFFERS, expected, got, self._known.source)

    def _missing(self, what: str, image: KnownImage) -> Check:
        where = f"is not in {self._folder}" if self._folder else "was not given"
        return Check(what, NOT_RUN, "", "", f"{image.name} {where}", None if self._folder else "pictures")


def _cached_tower(encoder: Encoder) -> Check:
    """Check that the text tower in the cache has the checksums it was written with, and replace a damaged one."""
    what, wanted = "text tower in the cache", "its checksums"
    there = tower_cache.is_whole(encoder.fingerprint, thorough=True)
    found = None if there else tower_cache.damage(encoder.fingerprint, thorough=True)
    if not encoder.save_text_tower():
        return Check(what, NOT_RUN, "", "", "there is none for this family: queries load the whole model")
    if found:
        return Check(what, DIFFERS, wanted, f"damaged: {found}", "it was made anew just now")
    return Check(what, AS_EXPECTED, wanted, "whole", "" if there else "it was made just now")


def _ours(encoder: Encoder) -> _Ours:
    pixels = [encoder.preprocessing(image) for image in _drawn()]
    images = encoder.encode_images(pixels)
    tower = tower_cache.load(encoder.fingerprint)
    return _Ours(_normalised(pixels, encoder.preprocessing), images, tower.encode_texts(_SENTENCES) if tower else None)


def _normalised(pixels: Sequence[npt.NDArray[np.uint8]], preprocessing: Preprocessing) -> Array | None:
    if len({one.shape for one in pixels}) > 1:
        return None
    normal = (np.stack(pixels) * preprocessing.scale - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return np.asarray(normal.transpose(0, 3, 1, 2), np.float32)


def _shortcuts(ours: _Ours, plain: Plain) -> Iterator[Check]:
    """Compare each step of this package's own code with transformers, on the test images and sentences."""
    what = "our preprocessing"
    if ours.pixels is None:
        yield Check(what, NOT_RUN, "", "", "inputs have different shapes; the next check covers the preprocessing")
    else:
        yield _within(what, ours.pixels, plain.pixels(_drawn()), _SAME_PIXELS)
    yield _within("our image tower", ours.images, _unit(plain.image_features(_drawn())), _SAME_VECTORS)
    what = "our text tower"
    if ours.texts is None:
        yield Check(what, NOT_RUN, "", "", "there is none for this family: queries load the whole model")
    else:
        yield _within(what, ours.texts, _unit(plain.text_features(_SENTENCES)), _SAME_VECTORS)


def _within(what: str, ours: Array, theirs: Array, bound: float) -> Check:
    if ours.shape != theirs.shape:
        return Check(what, DIFFERS, f"shape {theirs.shape}", f"shape {ours.shape}", "by transformers")
    largest = float(np.abs(ours - theirs).max())
    result = AS_EXPECTED if largest <= bound else DIFFERS  # NaN differs
    return Check(
        what, result, f"at most {bound:.0e}", f"{largest:.1e}", "largest difference to transformers, called directly"
    )


def _drawn() -> list[Image.Image]:
    """Draw the test images: a large one with edges and ramps, a tall one and a tiny one.

    Their sides are such that the centre crop begins at a whole pixel in any model; otherwise transformers and
    torchvision differ.
    """
    from PIL import Image

    images = []
    for width, height in ((640, 320), (300, 450), (40, 40)):
        x, y = np.arange(width), np.arange(height)[:, np.newaxis]
        squares = (x // 37 + y // 29) % 2 * 90
        channels = (x * 255 // width + 0 * y, y * 165 // height + squares, (x * y // 64 + squares) % 256)
        images.append(Image.fromarray(np.stack(np.broadcast_arrays(*channels), axis=-1).astype(np.uint8)))
    return images


def _found(known: KnownValues, folder: Path | None) -> dict[KnownImage, Image.Image]:
    """Return the images with known values that are drawn or found in `folder`."""
    wanted = {one.image for one in known.pixels} | {one.image for one in known.logits}
    wanted |= {one.of for one in known.features if isinstance(one.of, KnownImage)}
    found = {DRAWN: _drawn()[0]} if DRAWN in wanted else {}
    for path in sorted(folder.iterdir()) if folder else ():
        with suppress(OSError, UnreadableImageError):
            size = path.stat().st_size if path.is_file() else 0
            alike = {image.sha256: image for image in wanted if image.bytes == size and image.sha256}
            content = path.read_bytes() if alike else b""
            if (image := alike.get(hashlib.sha256(content).hexdigest())) is not None:
                found[image] = _decoded(content, os.fsencode(path.name))
    return found


def _decoded(content: bytes, name: bytes) -> Image.Image:
    from clipsearch.images.codecs.decoding import decode

    return decode(content, name).image


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _ids(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _numbers(values: Sequence[float] | npt.NDArray[np.floating]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _described(sha256: str, mean: Sequence[float], std: Sequence[float]) -> str:
    return f"{sha256[:16]}, mean {_numbers(mean)}, std {_numbers(std)}"
