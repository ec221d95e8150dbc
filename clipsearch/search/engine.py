"""The choice between the two engines that embed images: NumPy, which is ready at once, and torch.

Importing torch and building the image tower in it takes `START_OF_TORCH` seconds; then it is faster. NumPy finishes
first for up to

    START_OF_TORCH / (seconds of an image in NumPy - seconds of an image in torch)

images, and a run with no more never imports torch. The seconds of an image are estimated from the number of operations
of the tower's layers, by measured figures.

If more images are expected, torch is loaded in another thread while images are read and decoded. They are not embedded
in NumPy meanwhile, because that slowed the loading down so much that the whole run took longer. If a run turns out to
have more images only later, NumPy goes on while torch is loaded, and then hands over: each batch is computed by one of
the two. The components of their vectors are equal within 1e-5 in float32.

A GPU, and precisions other than float32, need torch. The option `engine` overrides the choice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ClipsearchError, ModelError
from clipsearch.index.format import Computed
from clipsearch.models.devices import CALLS_ON_CPU
from clipsearch.models.encoder_options import BY_ITSELF, EncoderOptions
from clipsearch.models.in_torch.loading import checked_fingerprint
from clipsearch.system import cores

if TYPE_CHECKING:
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.in_torch.image_encoder import ImageEncoder
    from clipsearch.models.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

START_OF_TORCH = 0.9
"""Seconds that importing torch and building a ViT-B/32 take. Like the constants below, it was measured on two cores of
an AMD EPYC (docs/benchmarks.md, 2026-11-27)."""
_OPERATIONS = 100e9
"""Floating-point operations per second of NumPy on one core, in batches of eight images."""
_OVERHEAD = 0.002
"""Seconds of an image in addition to its floating-point operations."""
_SAVED_BY_TORCH = 0.75
"""The share of an image's time that torch saves on a processor with bf16 units; in fp32 it saves none."""


def find_tower(
    name: str, fingerprint: str, files: Callable[[], ModelFiles], options: EncoderOptions
) -> ImageTower | None:
    """Load the image tower of a model from the cache; on first use it is made there.

    Args:
        name: the name of the model, for errors.
        fingerprint: that of the model.
        files: returns the files that the tower is made from.
        options: the device, precision and engine to compute with.

    Returns:
        The tower, or None if NumPy cannot compute it or the cache cannot be written.

    Raises:
        ModelError: `options` demand NumPy, which does not support the model or the other options.
    """
    from clipsearch.models.in_numpy import image_cache

    if options.engine == "numpy" and not _in_numpys_way(options):
        raise _not_in_numpy(name, "it computes on the processor in fp32 only")
    tower = image_cache.load(fingerprint, exact=options.exact)
    # The files may be those of another model than the index was made with; loading them raises the error.
    if tower is None and checked_fingerprint(files()) == fingerprint:
        with nullcontext() if options.engine == "numpy" else suppress(ModelError):
            image_cache.save(fingerprint, files())
            tower = image_cache.load(fingerprint, exact=options.exact)
    if tower is None and options.engine == "numpy":
        raise _not_in_numpy(name, "the image tower is not CLIP's or SigLIP's")
    return tower


def _not_in_numpy(name: str, reason: str) -> ModelError:
    return ModelError(f"NumPy cannot embed images with model {name!r}: {reason}.", hint="engine")


def _in_numpys_way(options: EncoderOptions) -> bool:
    return options.device in ("auto", "cpu") and options.precision in ("auto", "fp32")


def why_torch(options: EncoderOptions) -> str | None:
    """Return why torch embeds all images, for the log; None if it depends on the number of images."""
    if options.engine == "torch":
        return "as asked for"
    return None if _in_numpys_way(options) else "NumPy computes on the processor and in fp32 only"


NO_TOWER = "NumPy cannot compute this image tower, or the cache cannot be written"
"""The reason, in the log, why the whole model is loaded."""


def seconds_of_image(work: int) -> float:
    """Estimate the seconds of an image in NumPy on all cores, in a tower of `work` floating-point operations."""
    return _OVERHEAD + work / (_OPERATIONS * cores.available())


def most_images(work: int) -> int:
    """Estimate the number of images up to which NumPy finishes before torch."""
    return int(START_OF_TORCH / (_SAVED_BY_TORCH * seconds_of_image(work)))


class ImageEngine:
    """The image tower of a model in NumPy, or in torch for many images. It may be shared by threads."""

    def __init__(
        self,
        tower: ImageTower,
        load: Callable[[], ImageEncoder],
        *,
        options: EncoderOptions = BY_ITSELF,
        expected: int = 0,
    ) -> None:
        """Start with NumPy, or start loading torch in another thread.

        Args:
            tower: The image tower in NumPy.
            load: Returns the image tower in torch.
            options: The device, precision and engine to compute with.
            expected: Number of images that are likely to come. If they are too many for NumPy, torch is loaded at once
                and embeds all of them.
        """
        self.tower = tower
        self._why_torch = why_torch(options)
        self.most: float = most_images(tower.work)
        """Number of images up to which NumPy finishes before torch."""
        if options.engine == "numpy":
            self.most = float("inf")
        elif self._why_torch:
            self.most = -1
        self.dim = tower.dim
        """D, the length of the vectors."""
        self._batch_size = options.batch_size or tower.batch_size
        self._load = load
        self._lock = threading.Lock()
        self._in_numpy = threading.Lock()
        """Held by the one call that computes in NumPy, since it uses all cores."""
        self._asked = 0
        """Number of images so far."""
        self._divided = False
        self._torch: Future[ImageEncoder] | None = None
        self._waits = False
        """Whether images wait until torch is loaded; otherwise NumPy embeds them meanwhile."""
        self._device = options.device
        self.expect(expected)

    def expect(self, images: int) -> None:
        """Begin to count anew, for a run that has about so many images. Torch stays once it is loaded."""
        self._asked = 0
        if self._torch is None:
            self._waits = images > self.most
            if self._waits:
                self._torch = _in_another_thread(self._loaded)
                if self._device not in ("auto", "cpu"):
                    self._torch.result()  # so that a missing device is reported first

    @property
    def name(self) -> str:
        """The engine of the next batch: numpy or torch."""
        return "torch" if self.encoder_in_torch else "numpy"

    @property
    def is_loading(self) -> bool:
        """Whether images have to wait because torch is still being loaded."""
        return self._waits and self._torch is not None and not self._torch.done()

    def facts(self, fingerprint: str) -> list[str]:
        """Make the log lines about the engine: where its tower is, and why it is used."""
        if self._waits:
            return [f"engine: torch ({self._why_torch or f'sooner than NumPy for more than {self.most:.0f} images'})"]
        from clipsearch.models.in_numpy.image_cache import image_tower_folder

        reason = "as asked for"
        if self.most != float("inf"):
            seconds = seconds_of_image(self.tower.work)
            reason = f"sooner for up to {self.most:.0f} images at about {seconds:.3f} s than torch with its start"
        return [
            f"images: in the image tower, without torch, from {image_tower_folder(fingerprint)}",
            f"engine: numpy ({reason})",
        ]

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images, which both engines share."""
        return self.tower.preprocessing

    @property
    def batch_size(self) -> int:
        """The best number of images for `encode_images`; it grows when torch takes over."""
        encoder = self.encoder_in_torch
        return encoder.batch_size if encoder else self._batch_size

    @property
    def calls(self) -> int:
        """The best number of simultaneous calls of `encode_images` in torch; NumPy computes one after the other."""
        encoder = self.encoder_in_torch
        return encoder.calls if encoder else min(CALLS_ON_CPU, cores.available())

    def divide_cores(self) -> None:
        """Divide the cores between `calls` simultaneous calls in torch, now or as soon as it is loaded."""
        self._divided = True
        if encoder := self.encoder_in_torch:
            encoder.divide_cores()

    def encode_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Embed B images of (H, W, 3) pixels as (B, D) unit vectors.

        Raises:
            ClipsearchError: torch fails after it has taken over.
        """
        with self._lock:
            self._asked += len(pixels)
            if self._asked > self.most and self._torch is None:
                _log.info("engine: numpy until torch is loaded, since there are more than %.0f images", self.most)
                self._torch = _in_another_thread(self._loaded)
        encoder = self.encoder_in_torch
        if encoder is None:
            with self._in_numpy:
                encoder = self.encoder_in_torch  # torch may have been loaded while this call waited
                if encoder is None:
                    return self.tower.encode_images(pixels)
        return encoder.encode_images(pixels)

    def _loaded(self) -> ImageEncoder:
        encoder = self._load()
        if self._divided:
            encoder.divide_cores()
        return encoder

    @property
    def encoder_in_torch(self) -> ImageEncoder | None:
        """The tower in torch if it is loaded; if that fails, NumPy goes on, unless torch was demanded."""
        if self._torch is None or not (self._waits or self._torch.done()):
            return None
        try:
            return self._torch.result()
        except ClipsearchError as error:
            if self._why_torch:
                raise
            with self._lock:
                if self.most != float("inf"):
                    _log.warning("Torch cannot take over, and NumPy goes on: %s", error)
                self.most, self._torch, self._waits = float("inf"), None, False
            return None


def how_computed(used: ImageEngine | ImageEncoder) -> Computed:
    """Describe how the last batch was computed, for the record in an index."""
    if isinstance(used, ImageEngine):
        if used.encoder_in_torch is None:
            reason = "NumPy, as asked for" if used.most == float("inf") else "NumPy is sooner than torch here"
            return Computed("cpu", "NumPy computes on the processor", "fp32", reason, "numpy")
        used = used.encoder_in_torch
    return Computed(str(used.device), used.device_reason, used.precision, used.precision_reason, "torch")


def _in_another_thread(load: Callable[[], ImageEncoder]) -> Future[ImageEncoder]:
    """Run `load` in a thread. It is no daemon, because a process must not exit while torch is being imported."""
    future: Future[ImageEncoder] = Future()

    def run() -> None:
        try:
            future.set_result(load())
        except BaseException as error:  # noqa: BLE001  (raised again by `result`)
            future.set_exception(error)

    threading.Thread(target=run, name="load torch").start()
    return future
