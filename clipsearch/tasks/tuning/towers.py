"""A model with adapters in the layers of its towers: what is trained, and what of it is mixed into the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from clipsearch.errors import InputError, ModelError
from clipsearch.models.in_numpy.changed_weights import Change, check_weights
from clipsearch.models.in_torch import families
from clipsearch.models.in_torch.image_encoder import normaliser
from clipsearch.models.in_torch.precision import choose_device, choose_precision
from clipsearch.models.preprocessing import Preprocessing
from clipsearch.system import cores
from clipsearch.unit import NOTHING, Vectors, are_unit

if TYPE_CHECKING:
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.encoder_options import EncoderOptions
    from clipsearch.tasks.tuning.pictures import Pixels

_SIDES = {"text": ("text",), "image": ("vision",), "both": ("text", "vision")}
"""Towers that are trained, as transformers names them."""
_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Ends of the names of the matrices of attention and MLP, in CLIP's and SigLIP's towers."""
_RANK = 16
_ADAPTER = "default"
"""The name that peft gives to the only adapter of a layer."""
_WIDE = 512
"""Width of an image tower from which on several threads gain something: below, they mostly wait for one another."""
_VALUES = 40
"""Values that a layer keeps for its gradients, by token and dimension of its width, rounded up."""
_BUDGET = 2 << 30
"""Bytes of memory for these on a processor; on a GPU it is half of what is free."""
_WITHOUT_GRADIENTS = 4
"""How many times as many images and texts are computed at once if no gradients are wanted."""


class Towers:
    """A model whose layers have adapters: low-rank matrices whose product is added to a layer's weights."""

    def __init__(self, files: ModelFiles, options: EncoderOptions, which: str, *, seed: int) -> None:
        """Load a model, and give its layers adapters that change nothing yet.

        Args:
            files: The files of the model.
            options: The device and the precision.
            which: "text", "image" or "both".
            seed: That of the adapters.

        Raises:
            DeviceError: this machine has no such device.
            InputError: the precision is not for training, or images come in any proportions.
            ModelError: the model cannot be loaded, or has no such layers.
        """
        from peft import LoraConfig, inject_adapter_in_model

        # 1. The model.
        self.device = choose_device(options.device).device
        check_weights(files, ())
        self.preprocessing = Preprocessing.load(files)
        self.size = _square(self.preprocessing)
        model: Any = families.load(files).requires_grad_(False)
        self._name, self._texts, self.scale = files.name, families.Texts(files, model), families.logits(model).scale
        width = families.image_width(model)
        if options.device == "cpu" or self.device.type == "cpu":
            torch.set_num_threads(cores.available() if width >= _WIDE else 1)
        self.precision = _precision(options.precision, self.device, width)
        # 2. Its adapters.
        layers = [name for side in _SIDES[which] for name in _layers(model, side)]
        check_weights(files, [f"{name}.weight" for name in layers])
        torch.manual_seed(seed)
        config = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=layers)
        self._model: Any = inject_adapter_in_model(config, model).to(self.device)
        self._adapted: dict[str, Any] = {name: self._model.get_submodule(name) for name in layers}
        self.changes_images, self.changes_texts = which != "text", which != "image"
        # 3. What is computed at once.
        self._factor, self._offset = normaliser(self.preprocessing, self.device)
        vision, text, side = model.config.vision_config, model.config.text_config, self.size[0]
        patches = (side // vision.patch_size) ** 2 + 1
        budget = torch.cuda.mem_get_info(self.device)[0] // 2 if self.device.type == "cuda" else _BUDGET
        self.most_images, self.most_texts = (
            max(1, budget // (4 * _VALUES * length * one.hidden_size * one.num_hidden_layers))
            for one, length in ((vision, patches), (text, self._texts.context))
        )

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The weights of the adapters by name."""
        return {name: value for name, value in self._model.named_parameters() if value.requires_grad}

    @property
    def context(self) -> int:
        """Largest number of tokens of a text."""
        return self._texts.context

    def texts(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Embed B texts, given by the ids of their tokens, as (B, D) float32 unit vectors."""
        inputs = {name: value.to(self.device) for name, value in self._texts.inputs(ids).items()}
        with self._autocast():
            found = self._model.get_text_features(**inputs).pooler_output
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def levels(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return (B, H, W, 3) pixels as (B, 3, H, W) float32 levels of 0 to 255 on the device."""
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()

    def images(self, levels: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, H, W) levels as (B, D) float32 unit vectors."""
        normal = torch.addcmul(self._offset, levels, self._factor)
        with self._autocast():
            found = self._model.get_image_features(pixel_values=normal).pooler_output
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def all_texts(self, ids: Sequence[Sequence[int]]) -> Vectors:
        """Embed Q texts as (Q, D) unit vectors, without gradients."""
        most = _WITHOUT_GRADIENTS * self.most_texts
        return self._all(self.texts(ids[at : at + most]) for at in range(0, len(ids), most))

    def all_images(self, pixels: Pixels) -> Vectors:
        """Embed N images as (N, D) unit vectors, without gradients.

        Raises:
            ModelError: the model makes no vector of one.
        """
        most = _WITHOUT_GRADIENTS * self.most_images
        return self._all(
            self.images(self.levels(pixels.of(slice(at, at + most)))) for at in range(0, len(pixels.rows), most)
        )

    @torch.no_grad()
    def _all(self, batches: Iterator[torch.Tensor]) -> Vectors:
        found = [batch.cpu().numpy() for batch in batches]
        vectors = np.concatenate(found) if found else np.empty((0, families.dim(self._model)), np.float32)
        if not are_unit(vectors).all():
            raise ModelError(
                f"Model {self._name!r} makes no vectors of some images or texts: {NOTHING}.",
                hint="check-model",
                model=self._name,
            )
        return vectors

    def mix(self, share: float) -> None:
        """Take this share of what was learned; 0 is the model as it was."""
        for layer in self._adapted.values():
            layer.scaling[_ADAPTER] = share

    def changes(self) -> dict[str, Change]:
        """Return what the adapters, with the share that `mix` set, add to the weights of each name."""
        return {f"{name}.weight": partial(np.add, _added(layer)) for name, layer in self._adapted.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _layers(model: torch.nn.Module, side: str) -> list[str]:
    """Return the names of the layers of one tower that can be trained."""
    found = [
        name
        for name, layer in model.named_modules()
        if name.startswith(f"{side}_model.") and name.endswith(_LAYERS) and isinstance(layer, torch.nn.Linear)
    ]
    if not found:
        tower = "image" if side == "vision" else side
        raise ModelError(
            f"The {tower} tower is neither CLIP's nor SigLIP's, so it cannot be trained.", hint="list-models"
        )
    return found


@torch.no_grad()
def _added(layer: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401  (peft's)
    return np.asarray(layer.get_delta_weight(_ADAPTER).float().cpu().numpy())


def _square(preprocessing: Preprocessing) -> tuple[int, int]:
    if preprocessing.seen is None:
        raise InputError("This model takes images of any proportions; choose one with square inputs.")
    return preprocessing.seen


def _precision(wanted: str, device: torch.device, width: int) -> str:
    """Choose the precision for training; half precision without bf16 would need scaled gradients."""
    if wanted == "fp16":
        raise InputError("Weights are trained in fp32 or bf16, not in fp16.", hint="precision")
    chosen = choose_precision(wanted, device, width).name
    return "fp32" if chosen == "fp16" else chosen
