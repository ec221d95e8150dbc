"""A model on a device: pictures and texts to unit vectors.

This room and those it uses (`families`, `siglip_tokenizer`, `image_tower`, `precision`) are the only ones that import
torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from clipsearch import cores
from clipsearch.errors import DeviceError, ModelError
from clipsearch.logits import Logits
from clipsearch.models import families, text_tower, tower_cache
from clipsearch.models.activations import ACTIVATIONS
from clipsearch.models.files import ModelFiles, fingerprint
from clipsearch.models.image_tower import ImageTower, PlainTower
from clipsearch.models.precision import PRECISIONS, choose_device, choose_precision
from clipsearch.models.preprocessing import Patches, Preprocessing

Pixels = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
"""B pictures, (H, W, 3) each."""

_TEXT = "text_model."
_CALLS = 8
"""At most so many batches at once on a CPU; with more cores, each gets several."""
_CALLS_ON_GPU = {"cuda": 2, "mps": 1}
_BATCH, _BATCH_ON_CUDA = 16, 128
"""Larger ones were no faster on a CPU. On a GPU, more keeps more of it at work."""


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
        """Load the model. `exact` takes no shortcuts when pictures are decoded and resized.

        `known_fingerprint` is that of these very files, where somebody has just computed it.

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
        dtype = PRECISIONS[self.precision]
        if families.family(model) == "clip":
            self._tower: ImageTower | PlainTower = ImageTower(model, dtype, self.device)
            del model.vision_model  # the tower has its own copy
        else:
            self._tower = PlainTower(model, dtype, self.device)
        self.logits: Logits = families.logits(model)
        """What makes probabilities of cosines."""
        scale = self.preprocessing.scale
        self._factor, self._offset = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (
                [scale / std for std in self.preprocessing.std],
                [-mean / std for mean, std in zip(self.preprocessing.mean, self.preprocessing.std, strict=True)],
            )
        )
        self.batch_size = batch_size or (_BATCH_ON_CUDA if self.device.type == "cuda" else _BATCH)
        """Pictures that `encode_images` is best given at a time; less after the GPU's memory was too small."""
        self.calls = _CALLS_ON_GPU.get(self.device.type) or min(_CALLS, cores.available())
        """How many calls of `encode_images` at the same time make the most of the device.

        On a CPU each has cores of its own, and none waits for another. On CUDA one is copied while one is computed.
        PyTorch's MPS is not made for several threads.
        """

    def divide_cores(self) -> None:
        """Give each of `calls` calls at the same time its share of the cores, instead of all to each."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, cores.available() // self.calls))

    def encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of B pictures, (H, W, 3) pixels each, as `preprocessing` makes them.

        Where the memory of a GPU is too small, in smaller batches; `batch_size` is lowered then.

        Raises:
            DeviceError: it is too small even for one picture.
        """
        try:
            return self._encode_images(pixels)
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise DeviceError(
                    f"The memory of {self.device} is too small for this model. Try --device cpu."
                ) from error
        # Outside of `except`, where the error would keep what was computed so far in memory.
        torch.cuda.empty_cache()
        half = (len(pixels) + 1) // 2
        self.batch_size = min(self.batch_size, half)
        return np.concatenate([self.encode_images(pixels[:half]), self.encode_images(pixels[half:])])

    @torch.inference_mode()
    def _encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        if isinstance(self.preprocessing.resize, Patches):
            return _unit(self._tower(**self._patches(pixels, self.preprocessing.resize)))
        batch = self._on_device(np.stack(list(pixels)))
        normal = torch.addcmul(self._offset, batch.permute(0, 3, 1, 2).float(), self._factor)
        return _unit(self._tower(normal.to(self._tower.dtype)))

    def _patches(self, pixels: Pixels, patches: Patches) -> dict[str, torch.Tensor]:
        """What a tower for pictures of any proportions takes: (B, T, W) patches, which are real, (B, 2) grids."""
        # 1. Patches of all, filled up to the same number.
        batch = np.zeros((len(pixels), patches.most, patches.side**2 * 3), np.uint8)
        real = np.zeros((len(pixels), patches.most), np.int64)
        for i, picture in enumerate(pixels):
            cut = patches.cut(picture)
            batch[i, : len(cut)] = cut
            real[i, : len(cut)] = 1
        grids = np.array([picture.shape[:2] for picture in pixels]) // patches.side
        # 2. Normalised, with zeros where there is nothing.
        factor, offset = (values.flatten().repeat(patches.side**2) for values in (self._factor, self._offset))
        mask = self._on_device(real)
        normal = torch.addcmul(offset, self._on_device(batch).float(), factor) * mask.unsqueeze(-1)
        return {
            "pixel_values": normal.to(self._tower.dtype),
            "pixel_attention_mask": mask,
            "spatial_shapes": torch.from_numpy(grids),  # read by Python, so it stays here
        }

    def _on_device(self, batch: npt.NDArray[Any]) -> torch.Tensor:
        there = torch.from_numpy(batch)
        if self.device.type == "cuda":
            there = there.pin_memory()
        return there.to(self.device, non_blocking=self.device.type == "cuda")

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(Q, D) unit vectors of texts, in float32 on the CPU; `text_tower` gives the same without torch."""
        ids = [self.tokenize(text).ids for text in texts]
        fixed = self._texts.fixed
        length = self.context if fixed else max(map(len, ids))
        tokens = torch.full((len(ids), length), fixed.token if fixed else self._texts.pad)
        mask = torch.zeros_like(tokens)
        for i, one in enumerate(ids):
            place = slice(length - len(one), None) if fixed and fixed.left else slice(len(one))
            tokens[i, place], mask[i, place] = torch.tensor(one), 1
        seen = {} if fixed and not fixed.masked else {"attention_mask": mask}
        return _unit(self._model.get_text_features(input_ids=tokens, **seen).pooler_output)

    def tokenize(self, text: str) -> text_tower.Tokens:
        """Token ids of `text`, cut to the context."""
        return text_tower.tokenize(self.tokenizer, text, self.context, cleaned=self._texts.cleaned)

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""
        return self._texts.tokenizer

    @property
    def context(self) -> int:
        """Most tokens that the text tower reads, start and end included."""
        return self._texts.context

    def save_text_tower(self, say: Callable[[str], None] = lambda _: None) -> bool:
        """Leave this model's text tower in the cache, where queries find it, unless it is there already.

        False if the tower is not one that `text_tower` can compute. `say` hears if a damaged one is replaced.

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
        if found := tower_cache.damage(self.fingerprint):
            say(tower_cache.made_anew(self.name, found))
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
