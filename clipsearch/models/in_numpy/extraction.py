"""Extraction of image towers for `ImageTower` from a model's own files, without a model library.

Reads safetensors in transformers' layout and in open_clip's. Where the tensors are not exactly those of an architecture
that is computed in NumPy, or the activation is another one, the result is None and torch has to compute the tower.
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
"""Defaults of transformers for fields that a configuration of an image tower leaves out, common to all families."""
_CLIP_DEFAULTS = _DEFAULTS | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP_DEFAULTS = _DEFAULTS | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
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


def image_tower(files: ModelFiles) -> tuple[Weights, ImageShape] | None:
    """Extract the image tower of a model from the model's own files.

    Returns:
        Float32 weights as `ImageTower` wants them, which are views of the mapped files where these have float32, and
        the rest of its description. None if the tower cannot be computed in NumPy.

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
        except KeyError:  # a type of numbers that no supported tower has
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
    """Return the image tower's configuration with defaults; of two that early versions wrote, the effective one."""
    twice = config.get("vision_config_dict") if kind in LIKE_CLIP else None
    given = twice if isinstance(twice, dict) else config.get("vision_config")
    return (_CLIP_DEFAULTS if kind in LIKE_CLIP else _SIGLIP_DEFAULTS) | (given if isinstance(given, dict) else {})


def _is_of_images(name: str) -> bool:
    return name.startswith((_VISION, "visual_projection.")) and not name.endswith("position_ids")


def _shape(weights: Weights, config: Mapping[str, Any], *, is_clip: bool) -> ImageShape | None:
    """Return the description of a tower; None if its weights or its configuration are not those of a known tower."""
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
    elif weights[_PATCHES].ndim == 2:  # noqa: PLR2004  (each patch is a row)
        expected[_PATCHES] = "W 3PP"  # SigLIP 2's kind for images of any proportions
        sizes["3PP"] = 3 * patch * patch
    if any(weights[name].shape != tuple(sizes[letter] for letter in shape.split()) for name, shape in expected.items()):
        return None
    return ImageShape(config["num_attention_heads"], activation, float(config["layer_norm_eps"]), patch)


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
