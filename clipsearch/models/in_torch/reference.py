"""The reference for `models check`: a model's towers, processor and tokenizer in transformers, called directly.

Nothing here uses `image_tower`, `text_tower` or `preprocessing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPImageProcessorPil

from clipsearch.models.disk.clip_bpe import clean
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.disk.open_clip import Checkpoint
from clipsearch.models.in_torch import families
from clipsearch.unit import Array


class Plain:
    """A model in float32 on the CPU. A checkpoint of open_clip is converted to a `CLIPModel`."""

    def __init__(self, files: ModelFiles) -> None:
        """Load the model.

        Raises:
            ModelError: the weights are broken or do not belong to the configuration.
        """
        self._files = files
        self._model: Any = families.load(files)

    def pixels(self, images: Sequence[Image.Image]) -> Array:
        """Preprocess RGB images to (B, 3, H, W) float32 normalised pixels, with transformers' Pillow processor."""
        return np.asarray(self._processor()(images=list(images), return_tensors="np").pixel_values, np.float32)

    @torch.inference_mode()
    def image_features(self, images: Sequence[Image.Image]) -> Array:
        """Compute (B, D) float32 vectors of RGB images, not of unit length."""
        return _array(self._model.get_image_features(**self._processor()(images=list(images), return_tensors="pt")))

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> Array:
        """Compute (Q, D) float32 vectors of texts, not of unit length."""
        return _array(self._model.get_text_features(**self._tokens(texts)))

    def _processor(self) -> Any:  # noqa: ANN401  (transformers', of no common public type)
        if self._files.layout == "open_clip":
            settings = Checkpoint.load(self._files.folder).preprocessing()
            del settings["crop_offset"]  # transformers has no such setting
            return CLIPImageProcessorPil(**settings)
        return AutoImageProcessor.from_pretrained(
            self._files.folder, backend="pil", local_files_only=True, trust_remote_code=False
        )

    def _tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        reading = families.Texts(self._files, self._model)
        if self._files.layout == "open_clip":
            # open_clip pads with zeros; with causal attention the padding has no influence.
            reading.tokenizer.enable_truncation(reading.context)
            reading.tokenizer.enable_padding(pad_id=0, length=reading.context)
            ids = [encoded.ids for encoded in reading.tokenizer.encode_batch([clean(text) for text in texts])]
            return {"input_ids": torch.tensor(ids)}
        tokenizer: Any = AutoTokenizer.from_pretrained(
            self._files.folder, local_files_only=True, trust_remote_code=False
        )
        return dict(
            tokenizer(
                list(texts),
                padding="max_length" if reading.fixed else True,
                truncation=True,
                max_length=reading.context,
                return_tensors="pt",
            )
        )


def _array(features: Any) -> Array:  # noqa: ANN401  (transformers' output)
    return np.asarray(features.pooler_output.numpy(), np.float32)
