"""The image tower of a model on a device, which maps pixels to unit vectors. Imports torch but not transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from clipsearch.errors import DeviceError
from clipsearch.models.devices import CALLS_ON_CPU
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.models.in_numpy.image_tower import ImageTower as TowerInNumPy
from clipsearch.models.in_torch.image_tower import ImageTower, PlainTower
from clipsearch.models.in_torch.precision import PRECISIONS, choose_device, choose_precision
from clipsearch.models.preprocessing import Patches, Preprocessing
from clipsearch.system import cores
from clipsearch.unit import are_unit

_log = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
"""Pixels of B images, (H, W, 3) each."""

_CALLS_ON_GPU = {"cuda": 2, "mps": 1}
_BATCH, _BATCH_ON_CUDA = 16, 128
"""Default numbers of images in a batch. Larger ones were not faster on a CPU; on a GPU they use more of its units."""


class _Tensors(Mapping[str, torch.Tensor]):
    """Arrays as tensors that share their memory. It may be that of a mapped file, so nothing may write to them."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.floating]]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> torch.Tensor:
        return from_dlpack(self._arrays[name])  # from_numpy warns of memory that cannot be written

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class ImageEncoder:
    """An image tower on one device."""

    def __init__(
        self,
        name: str,
        make_tower: Callable[[torch.dtype, torch.device], ImageTower | PlainTower],
        preprocessing: Preprocessing,
        *,
        width: int,
        options: EncoderOptions,
    ) -> None:
        """Choose the device and the precision, and make the tower.

        Args:
            name: Name of the model, as the user would type it.
            make_tower: Makes the tower; called again for float32 if a lower precision fails for some image.
            preprocessing: The model's preprocessing.
            width: Width W of the tower's layers.
            options: Options of the model.

        Raises:
            DeviceError: this machine has no such device.
        """
        self.name, self.preprocessing, self.width = name, preprocessing, width
        self.device, self.device_reason = choose_device(options.device)
        self.precision, self.precision_reason = choose_precision(options.precision, self.device, width)
        self._make_tower = make_tower
        with _one_thread():
            self._tower = make_tower(PRECISIONS[self.precision], self.device)
        self._float32: ImageTower | PlainTower | None = None
        """A copy of the tower in fp32, made if a lower precision failed for some image."""
        self._lock = Lock()
        self._factor, self._offset = normaliser(preprocessing, self.device)
        self.batch_size = options.batch_size or (_BATCH_ON_CUDA if self.device.type == "cuda" else _BATCH)
        """Best number of images for one call of `encode_images`; lowered when the GPU's memory is too small."""
        self.calls = _CALLS_ON_GPU.get(self.device.type) or min(CALLS_ON_CPU, cores.available())
        """Best number of calls of `encode_images` at the same time.

        On a CPU each call has cores of its own, and none waits for another. On CUDA one batch is copied while another
        is computed. PyTorch's MPS does not support several threads.
        """

    @classmethod
    def of_tower(cls, name: str, tower: TowerInNumPy, options: EncoderOptions) -> Self:
        """Make an encoder from an image tower in NumPy whose images all have the same size.

        Raises:
            DeviceError: this machine has no such device.
        """

        def make(dtype: torch.dtype, device: torch.device) -> ImageTower:
            return ImageTower(_Tensors(tower.weights), tower.shape, dtype, device)

        return cls(name, make, tower.preprocessing, width=tower.width, options=options)

    is_loading = False
    """False, because the model is loaded; other encoders of `search/engine` may still be loading."""

    def divide_cores(self) -> None:
        """Give each of `calls` calls at the same time its share of the cores, instead of all cores."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, cores.available() // self.calls))

    def encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Embed images.

        Images whose vectors are not finite in a lower precision are computed again in fp32, and if they were a whole
        batch, so are all later images. If the memory of a GPU is too small, batches are divided and `batch_size` is
        lowered.

        Args:
            pixels: B images, (H, W, 3) each, as `preprocessing` returns them.

        Returns:
            (B, D) float32 unit vectors. The caller has to check that they are (see `are_unit`).

        Raises:
            DeviceError: the memory of the GPU is too small even for one image.
        """
        tower = self._tower  # another thread may replace it meanwhile
        vectors = self._encoded(pixels, tower)
        failed = np.flatnonzero(~are_unit(vectors))
        if len(failed) and tower.dtype != torch.float32:
            again = self._encoded([pixels[i] for i in failed.tolist()], self._in_float32())
            vectors[failed] = again
            if len(failed) == len(pixels) > 1 and are_unit(again).any():
                self._go_on_in_float32()
        return vectors

    def _go_on_in_float32(self) -> None:
        tower = self._in_float32()
        with self._lock:
            if self._tower is not tower:
                self._tower = tower
                self.precision, self.precision_reason = "fp32", f"{self.precision} gave no vectors"

    def _in_float32(self) -> ImageTower | PlainTower:
        with self._lock:
            if self._float32 is None:
                _log.warning(
                    "Model %r makes no vectors of some images in %s; these are computed again in fp32, which takes "
                    "longer.",
                    self.name,
                    self.precision,
                )
                self._float32 = self._make_tower(torch.float32, self.device)
            return self._float32

    def _encoded(self, pixels: Pixels, tower: ImageTower | PlainTower) -> npt.NDArray[np.float32]:
        """Embed images as (B, D) vectors, in batches that fit the GPU's memory."""
        try:
            return self._encode_images(pixels, tower)
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise DeviceError(
                    f"The memory of {self.device} is too small for this model. Compute on the CPU instead.",
                    hint="cpu",
                ) from error
        # This is outside of `except`, in which the error would keep intermediate results in memory.
        torch.cuda.empty_cache()
        half = (len(pixels) + 1) // 2
        self.batch_size = min(self.batch_size, half)
        return np.concatenate([self._encoded(pixels[:half], tower), self._encoded(pixels[half:], tower)])

    @torch.inference_mode()
    def _encode_images(self, pixels: Pixels, tower: ImageTower | PlainTower) -> npt.NDArray[np.float32]:
        if isinstance(self.preprocessing.resize, Patches):
            return unit(tower(**self._patches(pixels, self.preprocessing.resize, tower.dtype)))
        batch = self._on_device(np.stack(list(pixels)))
        normal = torch.addcmul(self._offset, batch.permute(0, 3, 1, 2).float(), self._factor)
        return unit(tower(normal.to(tower.dtype)))

    def embed_colours(self, colours: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, H, W) colours from 0 to 1, of the size of the model's input, as (B, D) unit vectors.

        Gradients flow back to the colours. The images must not be of any proportions.
        """
        normal = torch.addcmul(self._offset, colours * 255, self._factor)
        return torch.nn.functional.normalize(self._tower(normal.to(self._tower.dtype)).float(), dim=-1)

    def _patches(self, pixels: Pixels, patches: Patches, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return a tower's arguments for images of any proportions: (B, T, W) patches, their mask, (B, 2) grids."""
        # 1. Patches of all images, padded to the same number.
        batch = np.zeros((len(pixels), patches.most, patches.side**2 * 3), np.uint8)
        real = np.zeros((len(pixels), patches.most), np.int64)
        for i, image in enumerate(pixels):
            cut = patches.cut(image)
            batch[i, : len(cut)] = cut
            real[i, : len(cut)] = 1
        grids = np.array([image.shape[:2] for image in pixels]) // patches.side
        # 2. Normalised pixels, with zeros in the padding.
        factor, offset = (values.flatten().repeat(patches.side**2) for values in (self._factor, self._offset))
        mask = self._on_device(real)
        normal = torch.addcmul(offset, self._on_device(batch).float(), factor) * mask.unsqueeze(-1)
        return {
            "pixel_values": normal.to(dtype),
            "pixel_attention_mask": mask,
            "spatial_shapes": torch.from_numpy(grids),  # read by Python, so it stays here
        }

    def _on_device(self, batch: npt.NDArray[Any]) -> torch.Tensor:
        there = torch.from_numpy(batch)
        if self.device.type == "cuda":
            there = there.pin_memory()
        return there.to(self.device, non_blocking=self.device.type == "cuda")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in the calling thread alone, which is faster for some hundred short copies.

    Torch's threads wait for one another in a loop after each copy. Beside other work on the same cores, conversion of a
    ViT-B/32 took 0.7 s of processor time instead of 0.1 s.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normaliser(preprocessing: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (1, 3, 1, 1) factor and offset: an image tower is given offset + factor x levels of 0 to 255."""
    factors = [preprocessing.scale / std for std in preprocessing.std]
    offsets = [-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
    return torch.tensor(factors, device=device).view(1, 3, 1, 1), torch.tensor(offsets, device=device).view(1, 3, 1, 1)


def unit(vectors: torch.Tensor) -> npt.NDArray[np.float32]:
    """Scale (B, D) vectors on any device to (B, D) float32 unit vectors in NumPy."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
