"""A model in PyTorch on a device, which embeds images and texts as unit vectors.

Only the modules of this folder import torch and transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from clipsearch.errors import DeviceError, ModelError
from clipsearch.models.devices import CALLS_ON_CPU
from clipsearch.models.disk.files import ModelFiles, fingerprint
from clipsearch.models.in_numpy import text_tower, tower_cache
from clipsearch.models.in_numpy.activations import ACTIVATIONS
from clipsearch.models.in_torch import families
from clipsearch.models.in_torch.image_tower import ImageTower, PlainTower
from clipsearch.models.in_torch.precision import PRECISIONS, choose_device, choose_precision
from clipsearch.models.logits import Logits
from clipsearch.models.preprocessing import Patches, Preprocessing
from clipsearch.system import cores
from clipsearch.unit import are_unit

_log = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
"""Pixels of B images, (H, W, 3) each."""

_TEXT = "text_model."
_CALLS_ON_GPU = {"cuda": 2, "mps": 1}
_BATCH, _BATCH_ON_CUDA = 16, 128
"""Default numbers of images in a batch. Larger ones were not faster on a CPU; on a GPU they use more of its units."""


class Encoder:
    """A model on one device."""

    def __init__(
        self,
        files: ModelFiles,
        device: str = "auto",
        precision: str = "auto",
        *,
        batch_size: int | None = None,
        exact: bool = False,
        known_fingerprint: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            files: Files of the model.
            device: One of `devices.KNOWN` or `cuda:N`.
            precision: "auto" or one of `PRECISIONS`.
            batch_size: Number of images in a batch; None for the device's default.
            exact: Turn off shortcuts when images are decoded and resized.
            known_fingerprint: Fingerprint of these files, if it was computed before.

        Raises:
            DeviceError: the device is not there.
            InputError: the precision is unknown.
            ModelError: the weights are broken or do not belong to the configuration.
        """
        self.device, self.device_reason = choose_device(device)
        self.name, self.revision, self.folder = files.name, files.revision, files.folder
        self.preprocessing = replace(Preprocessing.load(files), exact=exact)
        self.fingerprint = known_fingerprint or fingerprint(files.folder)
        model: Any = families.load(files)  # what a model has depends on its family
        self._files, self._model = files, model
        self.dim = families.dim(model)
        self.precision, self.precision_reason = choose_precision(precision, self.device, families.image_width(model))
        self._tower = self._tower_of(model, PRECISIONS[self.precision])
        self._float32: ImageTower | PlainTower | None = None
        """A copy of the tower in fp32, made if a lower precision failed for some image."""
        self._lock = Lock()
        if isinstance(self._tower, ImageTower):
            del model.vision_model  # the tower has its own copy
        self.logits: Logits = families.logits(model)
        """The scale and bias for probabilities."""
        scale = self.preprocessing.scale
        self._factor, self._offset = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (
                [scale / std for std in self.preprocessing.std],
                [-mean / std for mean, std in zip(self.preprocessing.mean, self.preprocessing.std, strict=True)],
            )
        )
        self.batch_size = batch_size or (_BATCH_ON_CUDA if self.device.type == "cuda" else _BATCH)
        """Best number of images for one call of `encode_images`; lowered when the GPU's memory is too small."""
        self.calls = _CALLS_ON_GPU.get(self.device.type) or min(CALLS_ON_CPU, cores.available())
        """Best number of calls of `encode_images` at the same time.

        On a CPU each call has cores of its own, and none waits for another. On CUDA one batch is copied while another
        is computed. PyTorch's MPS does not support several threads.
        """

    is_loading = False
    """False, because the model is loaded; other encoders of `search/engine` may still be loading."""

    def divide_cores(self) -> None:
        """Give each of `calls` calls at the same time its share of the cores, instead of all cores."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, cores.available() // self.calls))

    def _tower_of(self, model: Any, dtype: torch.dtype) -> ImageTower | PlainTower:  # noqa: ANN401  (of any family)
        kind = ImageTower if families.family(model) == "clip" else PlainTower
        return kind(model, dtype, self.device)

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
                    "Model %r makes no vectors of some pictures in %s; these are computed again in fp32, which takes "
                    "longer.",
                    self.name,
                    self.precision,
                )
                self._float32 = self._tower_of(families.load(self._files), torch.float32)
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
            return _unit(tower(**self._patches(pixels, self.preprocessing.resize, tower.dtype)))
        batch = self._on_device(np.stack(list(pixels)))
        normal = torch.addcmul(self._offset, batch.permute(0, 3, 1, 2).float(), self._factor)
        return _unit(tower(normal.to(tower.dtype)))

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

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts as (Q, D) float32 unit vectors on the CPU; `text_tower` computes the same without torch."""
        return self.encode_tokens([self.tokenize(text) for text in texts])

    @torch.inference_mode()
    def encode_tokens(self, texts: Sequence[text_tower.Tokens]) -> npt.NDArray[np.float32]:
        """Embed texts that are tokenised already as (Q, D) float32 unit vectors."""
        ids = [text.ids for text in texts]
        fixed = self._texts.fixed
        length = self.context if fixed else max(map(len, ids))
        tokens = torch.full((len(ids), length), fixed.token if fixed else self._texts.pad)
        mask = torch.zeros_like(tokens)
        for i, one in enumerate(ids):
            place = slice(length - len(one), None) if fixed and fixed.left else slice(len(one))
            tokens[i, place], mask[i, place] = torch.tensor(one), 1
        if (largest := int(tokens.max())) >= self._texts.vocabulary:
            raise ModelError(text_tower.foreign_token(largest, self._texts.vocabulary))
        seen = {} if fixed and not fixed.masked else {"attention_mask": mask}
        return _unit(self._model.get_text_features(input_ids=tokens, **seen).pooler_output)

    def tokenize(self, text: str) -> text_tower.Tokens:
        """Tokenise `text`, cut to the context."""
        return text_tower.tokenize(self.tokenizer, text, self.context, cleaned=self._texts.cleaned)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._texts.tokenizer

    @property
    def context(self) -> int:
        """Largest number of tokens that the text tower reads, start and end included."""
        return self._texts.context

    def save_text_tower(self) -> bool:
        """Write this model's text tower to the cache for queries, unless it is there already.

        Returns:
            Whether the cache has it; False if `text_tower` cannot compute this tower.

        Raises:
            ModelError: the tokenizer does not belong to the tower, or the cache cannot be written.
        """
        if tower_cache.is_whole(self.fingerprint):
            return True
        shape = self._texts.shape(self.logits)
        if shape is None or shape.activation not in ACTIVATIONS:
            return False
        if shape.eos_token_id is not None and shape.eos_token_id not in self.tokenize("a").ids:
            raise ModelError(
                f"{self.folder}: the tokenizer ends no text with the text tower's end token ({shape.eos_token_id})."
            )
        weights = {
            name.removeprefix(_TEXT): tensor.detach().numpy()
            for name, tensor in self._model.state_dict().items()
            if name.startswith((_TEXT, "text_projection")) and not name.endswith("position_ids")
        }
        tower_cache.save(self.fingerprint, weights, shape, self.tokenizer)
        return True

    @cached_property
    def _texts(self) -> families.Texts:
        return families.Texts(self._files, self._model)


def _unit(vectors: torch.Tensor) -> npt.NDArray[np.float32]:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
