"""Extraction of image towers for `ImageTower` from a model's own files, without a model library.

Reads safetensors in transformers' layout and in open_clip's. Where the tensors are not exactly those of an architecture
that is computed in NumPy, or the activation is another one, the result is None and torch has to compute the tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.models.disk import hf_tokenizer
from clipsearch.models.disk.clip_bpe import find_tokenizer
from clipsearch.models.disk.files import ModelFiles, family, read_config, weight_files
from clipsearch.models.disk.open_clip import Checkpoint
from clipsearch.models.in_numpy.activations import ACTIVATIONS
from clipsearch.models.in_numpy.image_tower import ImageShape
from clipsearch.models.in_numpy.sealed import map_safetensors
from clipsearch.models.in_numpy.text_tower import LIKE_CLIP, LIKE_SIGLIP, FixedLength, TowerShape
from clipsearch.models.in_numpy.transformer import Weights
from clipsearch.unit import Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_VISION, _TEXT = "vision_model.", "text_model."
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
"""Defaults of transformers for fields that a configuration of a tower leaves out, common to all families."""
_CLIP_DEFAULTS = _DEFAULTS | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP_DEFAULTS = _DEFAULTS | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_CLIP_TEXT_DEFAULTS = _CLIP_DEFAULTS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_SIGLIP_TEXT_DEFAULTS = _SIGLIP_DEFAULTS | {"max_position_embeddings": 64, "eos_token_id": None}
_OLD_END = 2
"""An end token of old configurations, for which transformers takes the largest id of the text instead."""
_MOST_EXPONENT = 88
"""The exponential of a larger number is infinite in float32."""
_PATCHES, _IN_PROJECTION = "embeddings.patch_embedding.weight", "head.attention.in_proj_"

# Tensors and their shapes: W is the tower's width, M that of its MLPs, T the number of positions, P the side of a
# patch, D the dimensions of vectors.
_NORM = {"weight": "W", "bias": "W"}
_MLP = {"fc1.weight": "M W", "fc1.bias": "M", "fc2.weight": "W M", "fc2.bias": "W"}
_LAYER = {
    **{f"layer_norm{i}.{name}": shape for i in (1, 2) for name, shape in _NORM.items()},
    **{f"self_attn.{part}_proj.weight": "W W" for part in ("q", "k", "v", "out")},
    **{f"self_attn.{part}_proj.bias": "W" for part in ("q", "k", "v", "out")},
    **{f"mlp.{name}": shape for name, shape in _MLP.items()},
}
_BOTH = {
    "embeddings.position_embedding.weight": "T W",
    **{f"post_layernorm.{name}": shape for name, shape in _NORM.items()},
}
_CLIP = _BOTH | {
    "embeddings.class_embedding": "W",
    _PATCHES: "W 3 P P",
    **{f"pre_layrnorm.{name}": shape for name, shape in _NORM.items()},  # transformers spells it so
    "visual_projection.weight": "D W",
}
_SIGLIP = _BOTH | {
    _PATCHES: "W 3 P P",
    "embeddings.patch_embedding.bias": "W",
    "head.probe": "1 1 W",
    f"{_IN_PROJECTION}weight": "3W W",
    f"{_IN_PROJECTION}bias": "3W",
    "head.attention.out_proj.weight": "W W",
    "head.attention.out_proj.bias": "W",
    **{f"head.layernorm.{name}": shape for name, shape in _NORM.items()},
    **{f"head.mlp.{name}": shape for name, shape in _MLP.items()},
}
_TEXTS = {
    "embeddings.token_embedding.weight": "V W",
    "embeddings.position_embedding.weight": "T W",
    **{f"final_layer_norm.{name}": shape for name, shape in _NORM.items()},
}
_CLIP_TEXTS = _TEXTS | {"text_projection.weight": "D W"}
_SIGLIP_TEXTS = _TEXTS | {"head.weight": "D W", "head.bias": "D"}


class _Model(NamedTuple):
    """What the files of a model hold."""

    kind: str
    """The family, as `model_type` in the configuration."""
    tensors: Mapping[str, npt.NDArray[Any]]
    """Mapped, by transformers' names."""
    config: Mapping[str, Any]

    @property
    def is_clip(self) -> bool:
        """Whether the family is like CLIP, and not like SigLIP."""
        return self.kind in LIKE_CLIP


class TextParts(NamedTuple):
    """What a `TextTower` is made of."""

    weights: Weights
    shape: TowerShape
    tokenizer: Tokenizer


def text_tower(files: ModelFiles) -> TextParts | None:
    """Return what a `TextTower` is made of, from a model's own files; None if that takes transformers.

    The arrays are equal to those of the model after transformers has loaded it. Weights in float32 are views of the
    mapped files, others are copies.

    Raises:
        ModelError: the files cannot be read, or do not belong together.
    """
    model = _read(files)
    if model is None:
        return None
    config = model.config["text_config"]
    weights = {name: _float32(array) for name, array in _part(model, _TEXT, "text_projection.").items()}
    scale, bias = (_number(model.tensors.get(f"logit_{name}")) for name in ("scale", "bias"))
    end = config["eos_token_id"] if model.is_clip else None
    if not _fits(weights, config, _CLIP_TEXTS if model.is_clip else _SIGLIP_TEXTS):
        return None
    if scale is None or (bias is None) != model.is_clip or not (end is None or isinstance(end, int)):
        return None
    read = _tokenizer(files, model)
    if read is None:
        return None
    tokenizer, fixed = read
    if end == _OLD_END and model.kind != "metaclip_2":
        end = None
    if end is not None and end not in tokenizer.encode("a").ids:
        return None  # loading the model raises the error
    shape = TowerShape(
        heads=config["num_attention_heads"],
        activation=config["hidden_act"],
        layer_norm_eps=config["layer_norm_eps"],
        context=config["max_position_embeddings"],
        logit_scale=float(np.float32(math.exp(scale))),
        logit_bias=bias,
        eos_token_id=end,
        fixed=fixed,
        cleaned=files.layout == "open_clip",
    )
    return TextParts(weights, shape, tokenizer)


def _tokenizer(files: ModelFiles, model: _Model) -> tuple[Tokenizer, FixedLength | None] | None:
    """Return a model's tokenizer, and how texts are padded; None if that takes transformers."""
    if files.layout == "open_clip":
        return find_tokenizer(files.folder), None
    read = hf_tokenizer.find(files.folder, model.kind)
    if read is None:
        return None
    return read.tokenizer, None if model.is_clip else FixedLength(read.pad, left=read.left, masked=read.masked)


def _number(array: npt.NDArray[Any] | None) -> float | None:
    """Return the scale or bias of logits; None if there is none, or none that makes sense."""
    if array is None or array.size != 1:
        return None
    number = float(_float32(array).reshape(()))
    return number if -_MOST_EXPONENT < number < _MOST_EXPONENT else None


def image_tower(files: ModelFiles) -> tuple[Weights, ImageShape] | None:
    """Extract the image tower of a model from the model's own files.

    Returns:
        Float32 weights as `ImageTower` wants them, which are views of the mapped files where these have float32, and
        the rest of its description. None if the tower cannot be computed in NumPy.

    Raises:
        ModelError: the files cannot be read, or do not belong together.
    """
    model = _read(files)
    if model is None:
        return None
    weights = _part(model, _VISION, "visual_projection.")
    shape = _shape(weights, model.config["vision_config"], is_clip=model.is_clip)
    return None if shape is None else (_plain(weights), shape)


def _read(files: ModelFiles) -> _Model | None:
    """Read a model's files; None for unsupported models."""
    kind = family(files)
    if kind not in (*LIKE_CLIP, *LIKE_SIGLIP):
        return None
    tensors: dict[str, npt.NDArray[Any]] = {}
    for path in weight_files(files.folder):
        if path.suffix != ".safetensors":
            return None
        try:
            tensors |= map_safetensors(path)
        except KeyError:  # a type of numbers that no supported tower has
            return None
    if files.layout == "open_clip":
        checkpoint = Checkpoint.load(files.folder)
        return _Model(kind, checkpoint.converted(tensors), checkpoint.clip_config())
    config = read_config(files.folder)
    defaults = {
        "vision_config": _CLIP_DEFAULTS if kind in LIKE_CLIP else _SIGLIP_DEFAULTS,
        "text_config": _CLIP_TEXT_DEFAULTS if kind in LIKE_CLIP else _SIGLIP_TEXT_DEFAULTS,
    }
    return _Model(kind, tensors, {name: values | _given(config, name, kind) for name, values in defaults.items()})


def _part(model: _Model, tower: str, projection: str) -> dict[str, npt.NDArray[Any]]:
    """Return the weights of one tower, by their names within it, and those of its projection."""
    return {
        name.removeprefix(tower): array
        for name, array in model.tensors.items()
        if name.startswith((tower, projection)) and not name.endswith("position_ids")
    }


def _given(config: Mapping[str, Any], name: str, kind: str) -> dict[str, Any]:
    """Return a tower's configuration in the file; of two that early versions wrote, the effective one."""
    twice = config.get(f"{name}_dict") if kind in LIKE_CLIP else None
    given = twice if isinstance(twice, dict) else config.get(name)
    return given if isinstance(given, dict) else {}


def _shape(weights: Weights, config: Mapping[str, Any], *, is_clip: bool) -> ImageShape | None:
    """Return the description of a tower; None if its weights or its configuration are not those of a known tower."""
    patch = config["patch_size"]
    if not isinstance(patch, int) or not config.get("vision_use_head", True):
        return None
    expected = dict(_CLIP if is_clip else _SIGLIP)
    sizes = {"P": patch}
    if not is_clip and weights.get(_PATCHES, np.empty(0)).ndim == 2:  # noqa: PLR2004  (each patch is a row)
        expected[_PATCHES] = "W 3PP"  # SigLIP 2's kind for images of any proportions
        sizes["3PP"] = 3 * patch * patch
    if not _fits(weights, config, expected, sizes):
        return None
    return ImageShape(config["num_attention_heads"], config["hidden_act"], float(config["layer_norm_eps"]), patch)


def _fits(
    weights: Weights,
    config: Mapping[str, Any],
    tensors: Mapping[str, str],
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> bool:
    """Return whether the weights are exactly `tensors` and those of the layers, in the shapes that `config` implies.

    A size that neither `config` nor `sizes` has, such as the number of dimensions, has to be the same in all tensors.
    """
    expected = dict(tensors)
    for i in range(config["num_hidden_layers"]):
        expected |= {f"encoder.layers.{i}.{name}": shape for name, shape in _LAYER.items()}
    if config["hidden_act"] not in ACTIVATIONS or expected.keys() != weights.keys():
        return False
    width = config["hidden_size"]
    free: dict[str, int] = {"3": 3, "1": 1, "W": width, "3W": 3 * width, "M": config["intermediate_size"], **sizes}
    if "max_position_embeddings" in config:
        free["T"] = config["max_position_embeddings"]
    for name, shape in expected.items():
        letters = shape.split()
        if len(letters) != weights[name].ndim:
            return False
        if any(
            free.setdefault(letter, side) != side for letter, side in zip(letters, weights[name].shape, strict=True)
        ):
            return False
    return True


def _plain(weights: Weights) -> Weights:
    """Convert weights to float32, and split queries, keys and values of SigLIP's head as in the layers."""
    found: dict[str, Array] = {}
    for name, array in weights.items():
        if name.startswith(_IN_PROJECTION):
            kind = name.removeprefix(_IN_PROJECTION)
            parts = np.split(_float32(array), 3)
            found |= {f"head.attention.{letter}_proj.{kind}": part for letter, part in zip("qkv", parts, strict=True)}
        else:
            found[name] = _float32(array)
    return found


def _float32(array: npt.NDArray[Any]) -> Array:
    """Convert numbers to float32; uint16 stands for bfloat16, the upper half of a float32, which NumPy lacks."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, np.float32)
