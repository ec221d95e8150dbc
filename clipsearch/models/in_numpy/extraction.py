"""Image towers out of a model's own files, without a model library: what `ImageTower` wants of them.

Reads safetensors in transformers' layout and in open_clip's. Where the tensors are not exactly those of the
architecture that is computed in numpy, or the activation is another, there is no tower; then torch has to do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsearch.models.disk.files import ModelFiles, family, read_config, weight_files
from clipsearch.models.disk.open_clip import Checkpoint
from clipsearch.models.in_numpy.activations import ACTIVATIONS
from clipsearch.models.in_numpy.image_tower import ImageShape
from clipsearch.models.in_numpy.sealed import map_safetensors
from clipsearch.models.in_numpy.text_tower import LIKE_CLIP, LIKE_SIGLIP
from clipsearch.models.in_numpy.transformer import Weights
from clipsearch.unit import Array

_VISION = "vision_model."
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
"""What transformers takes where a configuration of an image tower says nothing; the rest depends on the family."""
_CLIP_DEFAULTS = _DEFAULTS | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP_DEFAULTS = _DEFAULTS | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_PATCHES, _IN_PROJECTION = "embeddings.patch_embedding.weight", "head.attention.in_proj_"

# Tensors and their shapes: W the tower's width, M that of its MLPs, T its positions, P a patch's side, D dimensions.
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


def image_tower(files: ModelFiles) -> tuple[Weights, ImageShape] | None:
    """What an `ImageTower` is made of, from a model's own files; None where numpy cannot compute its image tower.

    Weights in float32 are views of the mapped files, others are copies.

    Raises:
        ModelError: the files cannot be read, or do not belong together.
    """
    kind = family(files)
    if kind not in (*LIKE_CLIP, *LIKE_SIGLIP):
        return None
    tensors: dict[str, npt.NDArray[Any]] = {}
    for path in weight_files(files.folder):
        if path.suffix != ".safetensors":
            return None
        try:
            tensors |= map_safetensors(path)
        except KeyError:  # numbers of a kind that no tower has
            return None
    if files.layout == "open_clip":
        checkpoint = Checkpoint.load(files.folder)
        tensors, config = checkpoint.converted(tensors), checkpoint.clip_config()["vision_config"]
    else:
        config = _vision_config(read_config(files.folder), kind)
    weights = {name.removeprefix(_VISION): array for name, array in tensors.items() if _is_of_images(name)}
    shape = _shape(weights, config, is_clip=kind in LIKE_CLIP)
    return None if shape is None else (_plain(weights), shape)


def _vision_config(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What transformers reads of a configuration: its defaults, and of what early versions wrote twice, the second."""
    twice = config.get("vision_config_dict") if kind in LIKE_CLIP else None
    given = twice if isinstance(twice, dict) else config.get("vision_config")
    return (_CLIP_DEFAULTS if kind in LIKE_CLIP else _SIGLIP_DEFAULTS) | (given if isinstance(given, dict) else {})


def _is_of_images(name: str) -> bool:
    return name.startswith((_VISION, "visual_projection.")) and not name.endswith("position_ids")


def _shape(weights: Weights, config: Mapping[str, Any], *, is_clip: bool) -> ImageShape | None:
    """What `config` says beside the weights; None where these are not just the tensors of a tower, or it is odd."""
    patch, activation = config["patch_size"], config["hidden_act"]
    if not isinstance(patch, int) or activation not in ACTIVATIONS:
        return None
    expected = dict(_CLIP if is_clip else _SIGLIP)
    for i in range(config["num_hidden_layers"]):
        expected |= {f"encoder.layers.{i}.{name}": shape for name, shape in _LAYER.items()}
    if expected.keys() != weights.keys():
        return None
    width, positions = config["hidden_size"], len(weights["embeddings.position_embedding.weight"])
    sizes = {"3": 3, "1": 1, "W": width, "3W": 3 * width, "M": config["intermediate_size"], "P": patch, "T": positions}
    if is_clip:
        sizes["D"] = len(weights["visual_projection.weight"])
    elif weights[_PATCHES].ndim == 2:  # noqa: PLR2004  (each patch is a line)
        expected[_PATCHES] = "W 3PP"  # SigLIP 2's kind for any proportions
        sizes["3PP"] = 3 * patch * patch
    if any(weights[name].shape != tuple(sizes[letter] for letter in shape.split()) for name, shape in expected.items()):
        return None
    return ImageShape(config["num_attention_heads"], activation, float(config["layer_norm_eps"]), patch)


def _plain(weights: Weights) -> Weights:
    """In float32, with queries, keys and values of SigLIP's head apart, as the layers have them."""
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
    """The same numbers; bfloat16, which numpy lacks and the mapping gives as whole numbers, has their upper half."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, np.float32)
