"""CLIP through transformers: pictures and texts to unit vectors.

This room and those it uses, `image_tower` and `precision`, are the only ones that import torch and transformers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoTokenizer, CLIPModel
from transformers.utils import logging

from clipsearch import cores
from clipsearch.errors import DeviceError, ModelError
from clipsearch.models import text_tower
from clipsearch.models.files import ModelFiles, fingerprint
from clipsearch.models.image_tower import ImageTower
from clipsearch.models.precision import PRECISIONS, choose_device, choose_precision
from clipsearch.models.preprocessing import Preprocessing
from clipsearch.models.text_tower import TowerShape

_TEXT = "text_model."
_CALLS = 8
"""At most so many batches at once on a CPU; with more cores, each gets several."""
_BATCH, _BATCH_ON_CUDA = 16, 128
"""Larger ones were no faster on a CPU. On a GPU, more keeps more of it at work."""


class Encoder:
    """A CLIP model on one device."""

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
        self.device = choose_device(device)
        self.name, self.revision, self.folder = files.name, files.revision, files.folder
        self.preprocessing = replace(Preprocessing.load(files.folder), exact=exact)
        self.fingerprint = known_fingerprint or fingerprint(files.folder)
        model = _load(files)
        self._config = cast("Any", model.config)  # its parts are typed as objects or dictionaries
        self.dim: int = self._config.projection_dim
        self.precision, self.precision_reason = choose_precision(
            precision, self.device, self._config.vision_config.hidden_size
        )
        self._tower = ImageTower(model, PRECISIONS[self.precision], self.device)
        del model.vision_model  # the tower has its own copy
        self._text_model = model
        self.logit_scale = float(model.logit_scale.detach().exp())
        """What the model multiplies cosines by before a softmax."""
        torch.nn.Module.eval(model)  # the model's own `eval` is not typed
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
        self.calls = 2 if self.device.type == "cuda" else min(_CALLS, cores.available())
        """How many calls of `encode_images` at the same time make the most of the device.

        On a CPU each has cores of its own, and none waits for another. On CUDA one is copied while one is computed.
        """

    def divide_cores(self) -> None:
        """Give each of `calls` calls at the same time its share of the cores, instead of all to each."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, cores.available() // self.calls))

    def encode_images(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of (B, H, W, 3) pixels as `preprocessing` makes them.

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
    def _encode_images(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batch = torch.from_numpy(np.require(pixels, requirements="W"))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        normal = torch.addcmul(self._offset, batch.permute(0, 3, 1, 2).float(), self._factor)
        return _unit(self._tower(normal.to(self._tower.dtype)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(Q, D) unit vectors of texts, in float32 on the CPU; `text_tower` gives the same without torch."""
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        )
        return _unit(self._text_model.get_text_features(**tokens).pooler_output)

    def tokenize(self, text: str) -> text_tower.Tokens:
        """Token ids of `text`, cut to the context."""
        return text_tower.tokenize(self.tokenizer, text, self.context)

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""
        tokenizer: Tokenizer = self._tokenizer.backend_tokenizer
        return tokenizer

    @property
    def context(self) -> int:
        """Most tokens that the text tower reads, start and end included."""
        return int(self._config.text_config.max_position_embeddings)

    def save_text_tower(self) -> bool:
        """Leave this model's text tower in the cache, where queries find it, unless it is there already.

        False if the tower is not one that `text_tower` can compute.

        Raises:
            ModelError: the tokenizer does not belong to the tower, or the cache cannot be written.
        """
        if text_tower.tower_folder(self.fingerprint).exists():
            return True
        config = self._config.text_config
        if config.hidden_act not in text_tower.ACTIVATIONS:
            return False
        tokenizer = self._tokenizer
        eos = config.eos_token_id
        # 2 is transformers' mark for the rule of old configurations, which needs no such token.
        if eos != 2 and eos not in tokenizer("a").input_ids:  # noqa: PLR2004
            raise ModelError(f"{self.folder}: the tokenizer ends no text with the text tower's end token ({eos}).")
        weights = {
            name.removeprefix(_TEXT): tensor.detach().numpy()
            for name, tensor in self._text_model.state_dict().items()
            if name.startswith((_TEXT, "text_projection")) and not name.endswith("position_ids")
        }
        shape = TowerShape(
            heads=config.num_attention_heads,
            activation=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            eos_token_id=eos,
            context=config.max_position_embeddings,
            logit_scale=self.logit_scale,
        )
        text_tower.save(self.fingerprint, weights, shape, tokenizer.backend_tokenizer.save)
        return True

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401  (transformers' tokenizers have no common public type)
        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{self.folder}: the tokenizer cannot be loaded: {error}") from error


def _load(files: ModelFiles) -> CLIPModel:
    try:
        with _quiet():
            loaded: Any = CLIPModel.from_pretrained(
                files.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
            model: CLIPModel = loaded[0]
            missing = sorted(loaded[1]["missing_keys"])
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"The weights in {files.folder} cannot be loaded: {reason}. Copy the model folder again."
        ) from error
    if missing:
        raise ModelError(
            f"The weights in {files.folder} are incomplete: {len(missing)} tensors are missing, such as {missing[0]}. "
            "Copy the model folder again."
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own talk while it loads: what matters is raised as an error."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _unit(vectors: torch.Tensor) -> npt.NDArray[np.float32]:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
