"""A whole model in torch, which embeds images and texts as unit vectors.

Only the modules of this folder import torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import ModelFiles, fingerprint
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.models.in_numpy import text_tower, tower_cache
from clipsearch.models.in_numpy.activations import ACTIVATIONS
from clipsearch.models.in_torch import families
from clipsearch.models.in_torch.image_encoder import ImageEncoder, unit
from clipsearch.models.in_torch.image_tower import ImageTower, PlainTower
from clipsearch.models.in_torch.precision import choose_device
from clipsearch.models.logits import Logits
from clipsearch.models.preprocessing import Preprocessing

_TEXT = "text_model."


class Encoder(ImageEncoder):
    """A model on one device, loaded by transformers."""

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
            DeviceError: this machine has no such device.
            InputError: the precision is unknown.
            ModelError: the weights are broken or do not belong to the configuration.
        """
        options = EncoderOptions(device, precision, batch_size)
        choose_device(device)  # before anything is read
        self.revision, self.folder = files.revision, files.folder
        preprocessing = replace(Preprocessing.load(files), exact=exact)
        self.fingerprint = known_fingerprint or fingerprint(files.folder)
        model: Any = families.load(files)  # what a model has depends on its family
        self._files, self._model = files, model
        self.dim = families.dim(model)
        self.logits: Logits = families.logits(model)
        """The scale and bias for probabilities."""
        first = [model]

        def make(dtype: torch.dtype, device: torch.device) -> ImageTower | PlainTower:
            of: Any = first.pop() if first else families.load(files)
            return (ImageTower.of_clip if families.family(of) == "clip" else PlainTower)(of, dtype, device)

        super().__init__(files.name, make, preprocessing, width=families.image_width(model), options=options)
        if isinstance(self._tower, ImageTower):
            del model.vision_model  # the tower has its own copy

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts as (Q, D) float32 unit vectors on the CPU; `text_tower` computes the same without torch."""
        return self.encode_tokens([self.tokenize(text) for text in texts])

    @torch.inference_mode()
    def encode_tokens(self, texts: Sequence[text_tower.Tokens]) -> npt.NDArray[np.float32]:
        """Embed texts that are tokenised already as (Q, D) float32 unit vectors."""
        inputs = self._texts.inputs([text.ids for text in texts])
        return unit(self._model.get_text_features(**inputs).pooler_output)

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
