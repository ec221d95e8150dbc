"""What embeds images: the image tower in NumPy, which is ready at once, or torch. The choice is made here alone.

Torch has to be imported and the model built in it, `START_OF_TORCH` seconds; then it is faster. NumPy is sooner for up
to

    START_OF_TORCH / (seconds of an image in NumPy - seconds of an image in torch)

images, and a run that has no more never imports torch. What an image takes is estimated from the work of the tower's
layers, by figures that were measured.

Where more are expected, torch is loaded in another thread, and images are read and decoded meanwhile. They are not
computed in NumPy meanwhile: that took the cores from loading, and a run was the slower for it. Where it turns out later
that there are more, NumPy goes on while torch is loaded, and then hands over: each batch is computed by one of the two.
Their vectors are equal within 1e-5 of a component in float32.

Who asks for a GPU or for other numbers than float32 gets torch. The choice can be taken away: `numpy`, `torch`.
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
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.models.in_torch.loading import checked_fingerprint
from clipsearch.system import cores

if TYPE_CHECKING:
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

START_OF_TORCH = 3.7
"""Seconds: importing torch and transformers and building a ViT-B/32, on two cores of an AMD EPYC, as the next two
(docs/benchmarks.md, 2026-11-26)."""
_OPERATIONS = 100e9
"""Floating-point operations of NumPy on one core, in a second, where eight images are computed together."""
_OVERHEAD = 0.002
"""Seconds that an image takes besides them."""
_SAVED_BY_TORCH = 0.75
"""The share of the time of an image that torch saves, where the processor has bf16 units; in fp32 it saves none."""


def find_tower(
    name: str, fingerprint: str, files: Callable[[], ModelFiles], options: EncoderOptions
) -> ImageTower | None:
    """The image tower of model `name` from the cache, or made from its `files`; None where torch has to embed images.

    Raises:
        ModelError: NumPy was asked for and cannot compute the model, or not as the other options want it.
    """
    possible = _in_numpys_way(options)
    if options.engine == "torch" or (options.engine == "auto" and not possible):
        return None
    from clipsearch.models.in_numpy import image_cache

    tower = None
    if possible:
        tower = image_cache.load(fingerprint, exact=options.exact)
        # Files of another model than the index was made with are none of this tower; loading them says so.
        if tower is None and checked_fingerprint(files()) == fingerprint:
            with suppress(ModelError) if options.engine == "auto" else nullcontext():
                image_cache.save(fingerprint, files())
                tower = image_cache.load(fingerprint, exact=options.exact)
    if tower is None and options.engine == "numpy":
        reason = (
            "the image tower is not CLIP's or SigLIP's" if possible else "it computes on the processor in fp32 only"
        )
        raise ModelError(f"NumPy cannot embed images with model {name!r}: {reason}.", hint="engine")
    return tower


def _in_numpys_way(options: EncoderOptions) -> bool:
    return options.device in ("auto", "cpu") and options.precision in ("auto", "fp32")


def why_no_tower(options: EncoderOptions) -> str:
    """Why `find_tower` found none, for people."""
    if options.engine == "torch":
        return "as asked for"
    if not _in_numpys_way(options):
        return "NumPy computes on the processor and in fp32 only"
    return "NumPy cannot compute this image tower, or the cache cannot be written"


def seconds_of_image(work: int) -> float:
    """Seconds that an image takes in NumPy on all cores, where a tower takes `work` floating-point operations."""
    return _OVERHEAD + work / (_OPERATIONS * cores.available())


def most_images(work: int) -> int:
    """For how many images NumPy is sooner than torch."""
    return int(START_OF_TORCH / (_SAVED_BY_TORCH * seconds_of_image(work)))


class ImageEngine:
    """The image tower of a model in NumPy, and in torch where there are many images. Threads may share it."""

    def __init__(
        self,
        tower: ImageTower,
        load: Callable[[], Encoder],
        *,
        forced: bool = False,
        expected: int = 0,
        batch_size: int | None = None,
    ) -> None:
        """Begin in NumPy, or load torch in another thread.

        Args:
            tower: The image tower in NumPy.
            load: Gives the model in torch.
            forced: Stay in NumPy; `load` is never called.
            expected: Number of images that are likely to come. If they are too many for NumPy, torch is loaded from now
                on, and computes all of them.
            batch_size: Number of images that NumPy computes together; by default what suits the tower.
        """
        self.tower = tower
        self.most: float = float("inf") if forced else most_images(tower.work)
        """Images that NumPy is sooner for."""
        self.dim = tower.dim
        """D, of the vectors."""
        self._batch_size = batch_size or tower.batch_size
        self._load = load
        self._lock = threading.Lock()
        self._in_numpy = threading.Lock()
        """One call at a time, since it takes all cores."""
        self._asked = 0
        """Images so far."""
        self._divided = False
        self._torch: Future[Encoder] | None = None
        self._waits = expected > self.most
        """Whether torch is waited for; otherwise NumPy computes while it is loaded."""
        if self._waits:
            self._torch = _in_another_thread(self._loaded)

    @property
    def name(self) -> str:
        """What computes the next batch: numpy or torch."""
        return "torch" if self.encoder_in_torch else "numpy"

    @property
    def is_loading(self) -> bool:
        """Whether nothing can be computed yet."""
        return self._waits and self._torch is not None and not self._torch.done()

    def facts(self, fingerprint: str) -> list[str]:
        """Lines for the log: where the tower of the model with this fingerprint is, and why it is used."""
        if self._waits:
            return [f"engine: torch (sooner than NumPy for more than {self.most:.0f} images)"]
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
        """What makes pixels of images, the same for both."""
        return self.tower.preprocessing

    @property
    def batch_size(self) -> int:
        """Images that `encode_images` is best given at a time; more after torch has taken over."""
        encoder = self.encoder_in_torch
        return encoder.batch_size if encoder else self._batch_size

    @property
    def calls(self) -> int:
        """How many calls of `encode_images` at the same time are best in torch; NumPy computes one after the other."""
        encoder = self.encoder_in_torch
        return encoder.calls if encoder else min(CALLS_ON_CPU, cores.available())

    def divide_cores(self) -> None:
        """Give each of `calls` calls at the same time its share of the cores, once torch has taken over."""
        self._divided = True
        if encoder := self.encoder_in_torch:
            encoder.divide_cores()

    def encode_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of B times (H, W, 3) pixels.

        Raises:
            ClipsearchError: torch has taken over and fails.
        """
        with self._lock:
            self._asked += len(pixels)
            if self._asked > self.most and self._torch is None:
                _log.info("engine: numpy until torch is loaded, since there are more than %.0f images", self.most)
                self._torch = _in_another_thread(self._loaded)
        encoder = self.encoder_in_torch
        if encoder is None:
            with self._in_numpy:
                encoder = self.encoder_in_torch  # it may have come while this call waited
                if encoder is None:
                    return self.tower.encode_images(pixels)
        return encoder.encode_images(pixels)

    def _loaded(self) -> Encoder:
        encoder = self._load()
        if self._divided:
            encoder.divide_cores()
        return encoder

    @property
    def encoder_in_torch(self) -> Encoder | None:
        """The model in torch, as soon as it is loaded; where it cannot be, all is computed in NumPy."""
        if self._torch is None or not (self._waits or self._torch.done()):
            return None
        try:
            return self._torch.result()
        except ClipsearchError as error:
            with self._lock:
                if self.most != float("inf"):
                    _log.warning("Torch cannot take over, and NumPy goes on: %s", error)
                self.most, self._torch, self._waits = float("inf"), None, False
            return None


def how_computed(used: ImageEngine | Encoder) -> Computed:
    """How the last batch was computed, for an index to remember."""
    if isinstance(used, ImageEngine):
        if used.encoder_in_torch is None:
            reason = "NumPy, as asked for" if used.most == float("inf") else "NumPy is sooner than torch here"
            return Computed("cpu", "NumPy computes on the processor", "fp32", reason, "numpy")
        used = used.encoder_in_torch
    return Computed(str(used.device), used.device_reason, used.precision, used.precision_reason, "torch")


def _in_another_thread(load: Callable[[], Encoder]) -> Future[Encoder]:
    """What `load` will have given. The process waits for it at its end, for torch cannot be stopped while it loads."""
    future: Future[Encoder] = Future()

    def run() -> None:
        try:
            future.set_result(load())
        except BaseException as error:  # noqa: BLE001  (it is raised where the result is asked for)
            future.set_exception(error)

    threading.Thread(target=run, name="load torch").start()
    return future
