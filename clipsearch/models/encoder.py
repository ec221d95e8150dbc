"""CLIP through transformers: pictures and texts to unit vectors. The only room that imports torch and transformers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPModel
from transformers.utils import logging

from clipsearch.errors import DeviceError, ModelError
from clipsearch.models import text_tower
from clipsearch.models.catalog import ModelFiles, fingerprint
from clipsearch.models.preprocessing import Preprocessing
from clipsearch.models.text_tower import TowerShape

DEVICES = ("auto", "cpu", "cuda")
_TEXT = "text_model."


class Encoder:
    """A CLIP model on one device, in float32."""

    precision = "fp32"

    def __init__(self, files: ModelFiles, device: str = "auto") -> None:
        """Load the model.

        Raises:
            DeviceError: the device is not there.
            ModelError: the weights are broken or do not belong to the configuration.
        """
        self.device = choose_device(device)
        self.name, self.revision, self.folder = files.name, files.revision, files.folder
        self.preprocessing = Preprocessing.load(files.folder)
        self.model = _load(files)
        torch.nn.Module.to(self.model, self.device)  # the model's own `to` and `eval` are not typed
        torch.nn.Module.eval(self.model)
        self._config = cast("Any", self.model.config)  # its parts are typed as objects or dictionaries
        self.dim: int = self._config.projection_dim
        self.fingerprint = fingerprint(files.folder)
        self._mean = torch.tensor(self.preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.preprocessing.std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def encode_images(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of (B, H, W, 3) pixels as `preprocessing` makes them."""
        batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() * self.preprocessing.scale
        return _unit(self.model.get_image_features(pixel_values=(batch - self._mean) / self._std).pooler_output)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(Q, D) unit vectors of texts; `text_tower` gives the same without torch."""
        context = self._config.text_config.max_position_embeddings
        tokens = self._tokenizer()(
            list(texts), padding=True, truncation=True, max_length=context, return_tensors="pt"
        ).to(self.device)
        return _unit(self.model.get_text_features(**tokens).pooler_output)

    def save_text_tower(self) -> None:
        """Leave this model's text tower in the cache, where queries find it, unless it is there already.

        Raises:
            ModelError: the tower is not one that `text_tower` can compute, or the cache cannot be written.
        """
        if text_tower.tower_folder(self.fingerprint).exists():
            return
        config = self._config.text_config
        if config.hidden_act not in text_tower.ACTIVATIONS:
            raise ModelError(f"{self.folder}: the text tower's activation {config.hidden_act!r} is not CLIP's.")
        tokenizer = self._tokenizer()
        eos = config.eos_token_id
        # 2 is transformers' mark for the rule of old configurations, which needs no such token.
        if eos != 2 and eos not in tokenizer("a").input_ids:  # noqa: PLR2004
            raise ModelError(f"{self.folder}: the tokenizer ends no text with the text tower's end token ({eos}).")
        weights = {
            name.removeprefix(_TEXT): tensor.detach().to("cpu", torch.float32).numpy()
            for name, tensor in self.model.state_dict().items()
            if name.startswith((_TEXT, "text_projection")) and not name.endswith("position_ids")
        }
        shape = TowerShape(
            heads=config.num_attention_heads,
            activation=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            eos_token_id=eos,
            context=config.max_position_embeddings,
        )
        text_tower.save(self.fingerprint, weights, shape, tokenizer.backend_tokenizer.save)

    def _tokenizer(self) -> Any:  # noqa: ANN401  (transformers' tokenizers have no common public type)
        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{self.folder}: the tokenizer cannot be loaded: {error}") from error


def choose_device(wanted: str) -> torch.device:
    """The torch device for `--device`.

    Raises:
        DeviceError: it is unknown or not there.
    """
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if wanted == "auto":
        return torch.device(there[-1])
    if wanted not in DEVICES:
        raise DeviceError(f"Unknown device {wanted!r}; choose one of: {', '.join(DEVICES)}.")
    if wanted not in there:
        raise DeviceError(
            f"No {wanted} device here (PyTorch {torch.__version__} sees: {', '.join(there)}). "
            "Leave --device away, or install PyTorch with CUDA."
        )
    return torch.device(wanted)


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
