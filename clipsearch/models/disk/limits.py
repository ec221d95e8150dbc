"""Limits for the configuration of a model, and a comparison of the configuration with the weights.

Anybody may have written a configuration, and a model library builds what it describes, be it a layer of a billion
dimensions, ten million layers or a division by zero heads. So it is compared with limits and with the tensors in the
headers of the weights before a library is imported and anything is built. Knows neither where models come from nor how
they are loaded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipsearch.models.disk.integrity import Tensor, read_header

_LARGEST_FILE = 1 << 24
"""Limit in bytes. Configurations of the catalogue have some thousand; one with 21,841 labels would take a million."""
_DEEPEST = 12
"""Limit for the depth of nested objects; configurations of transformers have three."""

# Least and greatest values, both included. The greatest are several times those of the largest published models: an
# image tower of 18 billion parameters (EVA-CLIP) has a width of 5,120, MLPs of 25,600 and 48 layers; vocabularies have
# 256,000 tokens (SigLIP 2) to 900,000 (XLM-V).
_WIDTH, _MLP, _LAYERS, _HEADS = (1, 32_768), (1, 262_144), (1, 512), (1, 1024)
_SIDE = (1, 8192)
"""Side of an image tower's input in pixels; published models have up to 1,024."""
_VOCABULARY, _CONTEXT = (1, 4_000_000), (3, 131_072)
"""A context needs places for the start, the end and one token between them."""
_PARTS = (0, 65_536)
"""Numbers of patches, groups, labels and kinds of tokens."""
_WHOLE: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("hidden_size", "width", "embed_dim", "embedding_size", "head_width"), _WIDTH),
    **dict.fromkeys(("projection_dim", "projection_size", "project_dim", "d_model"), _WIDTH),
    **dict.fromkeys(("intermediate_size", "projection_intermediate_dim", "ffn_dim"), _MLP),
    **dict.fromkeys(("num_hidden_layers", "layers", "num_layers", "depths"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "heads", "num_key_value_heads", "num_heads"), _HEADS),
    **dict.fromkeys(("image_size", "patch_size"), _SIDE),
    **dict.fromkeys(("height", "shortest_edge", "longest_edge"), _SIDE),
    "num_channels": (3, 3),  # images come as red, green and blue
    "vocab_size": _VOCABULARY,
    **dict.fromkeys(("max_position_embeddings", "context_length"), _CONTEXT),
    **dict.fromkeys(("num_group_tokens", "num_output_groups", "num_labels", "type_vocab_size"), _PARTS),
    "num_patches": (1, _PARTS[1]),
    "max_num_patches": (1, 4096),  # work grows with the square; published models have up to 1,024
}
"""Limits of whole numbers, wherever they occur in a configuration."""
_LISTS = (
    *("image_size", "patch_size", "depths", "num_group_tokens", "num_output_groups", "layers", "num_heads"),
    *("num_attention_heads", "image_mean", "image_std", "mean", "std"),
)
"""Fields that may be lists of numbers: two sides, or one number for each stage of a tower or each colour."""
_NEEDED = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps"),
    *("vocab_size", "max_position_embeddings"),
)
"""Fields that may be missing, because there are defaults, but must not be null."""
_LABELS = ("id2label", "label2id")
"""Objects whose field names are free."""
_REAL: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("layer_norm_eps", "attention_dropout", "dropout"), (0.0, 1.0)),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), (0.0, 1.0)),
    **dict.fromkeys(("initializer_range", "initializer_factor"), (0.0, 1e3)),
    "mlp_ratio": (1e-3, 64.0),
    "rescale_factor": (1e-6, 1e3),  # 1/255 as a rule
    **dict.fromkeys(("image_mean", "mean"), (-1e4, 1e4)),  # 0.5, or 127.5 where levels stay as they are
    **dict.fromkeys(("image_std", "std"), (1e-3, 1e4)),  # pixels are divided by it
}
"""Limits of real numbers, wherever they occur in a configuration."""
_OBJECTS = (
    *("vision_config", "text_config", "vision_config_dict", "text_config_dict"),
    *("vision_cfg", "text_cfg", "model_cfg", "preprocess_cfg", "image_processor"),
)
_KINDS: tuple[tuple[tuple[str, ...], type, str], ...] = (
    (_OBJECTS, dict, "an object"),
    (("hidden_act", "model_type"), str, "a name"),
    (("do_resize", "do_center_crop", "do_rescale", "do_normalize", "quick_gelu"), bool, "true or false"),
    (("padding_side",), str, "left or right"),
)
_FILTERS = 5
"""Greatest number of one of Pillow's resampling filters, which begin at 0."""
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")

_VISION, _TEXT = r"(?:^|\.)vision_model\.", r"(?:^|\.)text_model\.(?:roberta\.)?"
_LAYER = {
    "vision": re.compile(_VISION + r"encoder\.layers?\.(\d+)\."),
    "text": re.compile(_TEXT + r"encoder\.layers?\.(\d+)\."),
}
_TENSORS = tuple(
    (tower, field, re.compile(name + "$"), axis)
    for tower, field, name, axis in (
        ("vision", "hidden_size", _VISION + r"embeddings\.patch_embedding\.weight", 0),
        ("vision", "intermediate_size", _VISION + r"encoder\.layers\.0\.mlp\.fc1\.weight", 0),
        ("text", "hidden_size", _TEXT + r"embeddings\.(?:token_embedding|word_embeddings)\.weight", 1),
        ("text", "vocab_size", _TEXT + r"embeddings\.(?:token_embedding|word_embeddings)\.weight", 0),
        ("text", "max_position_embeddings", _TEXT + r"embeddings\.position_embeddings?\.weight", 0),
        ("text", "intermediate_size", _TEXT + r"encoder\.layers?\.0\.(?:mlp\.fc1|intermediate\.dense)\.weight", 0),
        ("text", "projection_size", _TEXT + r"head\.weight", 0),
        ("", "projection_dim", r"(?:^|\.)(?:visual|text)_projection\.weight", 0),
    )
)
"""Tower, field of its configuration, tensor, and axis whose length equals the field, if the family has the tensor."""
_POSITIONS = re.compile(_VISION + r"embeddings\.position_embedding\.weight$")
_OF_ONE_SIZE = ("altclip", "chinese_clip", "clip", "groupvit", "metaclip_2", "siglip", "vision-text-dual-encoder")
"""Families whose image towers accept images of one size only."""
_SMALL = 50_000_000
"""Number of parameters that any machine can build; below it the library may report itself what is wrong."""
_MOST_TIMES = 8
"""Allowed ratio of the estimated number of parameters to the bytes of the weights; some models share parameters."""


def wrong_with(folder: Path, names: Sequence[str], weights: Sequence[Path]) -> str | None:
    """Check the configurations of a model, also against its weights.

    Args:
        folder: Folder of the model.
        names: File names of configurations, in transformers' layout or open_clip's; missing ones are ignored.
        weights: Files of weights, of which only headers are read.

    Returns:
        A sentence that says what is wrong; None if nothing is.
    """
    try:
        configs = {name: _read(folder / name) for name in names if (folder / name).is_file()}
        for name, one in configs.items():
            for problem in _problems(one, ""):
                return f"{folder / name}: {problem}."
        config = configs.get("config.json")
        if config is not None:
            tensors: dict[str, Tensor] = {}
            for path in weights:
                if path.suffix == ".safetensors":
                    tensors |= read_header(path)
            images = next((configs[name] for name in _PREPROCESSING if name in configs), {})
            size = sum(path.stat().st_size for path in weights)
            for problem in (*_against_weights(config, tensors, size), *_against_images(config, images)):
                return f"{folder / 'config.json'}: {problem}."
    except ValueError as error:
        return f"{folder}: {error}."
    return None


def _read(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        ValueError: it is too large, or not a JSON object.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, which is no configuration")
    try:
        config = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path.name} nests too deep") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path.name} is no JSON object")  # noqa: TRY004  (of a file)
    return config


# -- each number by itself ---------------------------------------------------------------------------------------


def _problems(config: Mapping[str, Any], where: str, depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        yield f"{where}: objects nest too deep"
        return
    for name, value in config.items():
        yield from _problems_of(name, value, f"{where}.{name}" if where else name)
        if isinstance(value, dict) and name not in _LABELS:
            yield from _problems(value, f"{where}.{name}" if where else name, depth + 1)
    yield from _uneven(config, where)


def _problems_of(name: str, value: Any, where: str) -> Iterator[str]:  # noqa: ANN401  (JSON)
    if value is None and name not in _NEEDED:
        return
    if name == "quantization_config":
        yield "the weights are quantised, and clipsearch reads plain ones only"
    for wanted in (_wrong_number(name, value), _wrong_kind(name, value), _wrong_size(name, value)):
        if wanted:
            yield f"{where} is {_short(value)}; it has to be {wanted}"
            return
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {_short(value)}, which is no number"


def _wrong_number(name: str, value: Any) -> str | None:  # noqa: ANN401  (JSON)
    """Return what a number has to be; None if it is."""
    each = value if isinstance(value, list) and name in _LISTS else [value]
    if name in _WHOLE:
        least, most = _WHOLE[name]
        right = all(type(one) is int and least <= one <= most for one in each)
        return None if right else f"a whole number from {least:,} to {most:,}"
    if name in _REAL:
        lowest, highest = _REAL[name]
        if not all(type(one) in (int, float) and lowest <= one <= highest for one in each):
            return f"a number from {lowest:g} to {highest:g}"
        if name.startswith("image_") and len(each) != 3:  # noqa: PLR2004  (red, green and blue)
            return "three numbers"
    if name == "model_max_length" and not (type(value) in (int, float) and value >= _CONTEXT[0]):
        return f"a number from {_CONTEXT[0]} on"
    return None


def _wrong_kind(name: str, value: Any) -> str | None:  # noqa: ANN401  (JSON)
    """Return what type a value has to have; None if it has it."""
    for names, kind, wanted in _KINDS:
        if name in names and not isinstance(value, kind):
            return wanted
    return None


def _wrong_size(name: str, value: Any) -> str | None:  # noqa: ANN401  (JSON)
    """Return what sizes of images are allowed; None if the value is allowed."""
    if name == "resample":
        return None if type(value) is int and 0 <= value <= _FILTERS else f"one of Pillow's filters, 0 to {_FILTERS}"
    if name not in ("size", "crop_size"):
        return None
    least, most = _SIDE
    sides = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    right = bool(sides) and all(side is None or (type(side) is int and least <= side <= most) for side in sides)
    return None if right else f"sides of {least} to {most:,} pixels"


def _uneven(config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield widths that are not a multiple of the number of heads, and patches that are larger than the image."""
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    own_size = {"head_dim", "attention_head_size"} & config.keys()
    if type(width) is int and type(heads) is int and not own_size and (heads < 1 or width % heads):
        yield f"{where}: {heads} heads cannot share a hidden size of {width}"
    image, patch = config.get("image_size"), config.get("patch_size")
    if type(image) is int and type(patch) is int and patch > image:
        yield f"{where}: a patch of {patch} pixels is larger than a picture of {image}"


def _short(value: object) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 60 else f"{shown[:60]} ..."  # noqa: PLR2004  (a line has to hold it)


# -- with weights and preprocessing ------------------------------------------------------------------------------


def _tower(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the configuration of one tower; if there are two, as early versions wrote them, the effective one."""
    if not name:
        return config
    found = config.get(f"{name}_config_dict") or config.get(f"{name}_config")
    return found if isinstance(found, dict) else {}


def _against_weights(config: Mapping[str, Any], tensors: Mapping[str, Tensor], size: int) -> Iterator[str]:
    """Yield differences between a configuration and the tensors; `tensors` has all of them, or is empty if unknown."""
    for tower, field, wanted, axis in _TENSORS:
        said = _tower(config, tower).get(field)
        for name, tensor in tensors.items():
            if said is not None and wanted.search(name) and len(tensor.shape) > axis and tensor.shape[axis] != said:
                yield _differs(f"{tower}_config.{field}" if tower else field, said, f"{name} is {_by(tensor.shape)}")
    for tower, layer in _LAYER.items():
        numbers = {int(found[1]) for name in tensors if (found := layer.search(name))}
        said = _tower(config, tower).get("num_hidden_layers")
        if numbers and said is not None and len(numbers) != said:
            yield _differs(f"{tower}_config.num_hidden_layers", said, f"the weights have {len(numbers)}")
    yield from _positions(_tower(config, "vision"), tensors)
    if (described := _parameters(config)) > max(_MOST_TIMES * size, _SMALL):
        yield f"it describes {described:,} parameters, and the weights have {size:,} bytes"


def _positions(vision: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    image, patch = vision.get("image_size"), vision.get("patch_size")
    found = next((tensor.shape for name, tensor in tensors.items() if _POSITIONS.search(name)), None)
    if type(image) is int and type(patch) is int and found and len(found) == 2:  # noqa: PLR2004  (places, width)
        patches = (image // patch) ** 2
        if found[0] not in (patches, patches + 1):  # with a class token
            yield _differs("vision_config.image_size", image, f"the weights have places for {found[0]} patches")


def _parameters(config: Mapping[str, Any]) -> int:
    """Estimate the number of parameters that a configuration describes: layers of transformers and token embeddings."""
    total = 0
    for tower in (_tower(config, "vision"), _tower(config, "text")):
        width, layers = tower.get("hidden_size"), tower.get("num_hidden_layers")
        if type(width) is int and type(layers) is int and "depths" not in tower:
            mlp = tower.get("intermediate_size") or 4 * width
            total += layers * (4 * width * width + 2 * width * mlp) + (tower.get("vocab_size") or 0) * width
    return total


def _against_images(config: Mapping[str, Any], images: Mapping[str, Any]) -> Iterator[str]:
    """Yield differences between the size of preprocessed images and the size that the image tower expects."""
    given = images.get("image_processor", images)
    vision = _tower(config, "vision")
    image, patch = vision.get("image_size"), vision.get("patch_size")
    if not images or not isinstance(given, dict) or type(patch) is not int:
        return  # a missing configuration is reported where it is needed
    cut = given.get("patch_size")
    if cut is not None and cut != patch:
        yield _differs("vision_config.patch_size", patch, f"pictures are cut into patches of {_short(cut)}")
    kind = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "CLIP")
    crops = given.get("do_center_crop", "CLIP" in kind)
    size = given.get("crop_size", 224) if crops else given.get("size", 224)
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if type(height) is not int or type(width) is not int:
        return
    of_one_size = config.get("model_type") in _OF_ONE_SIZE and type(image) is int
    if min(height, width) < patch or (of_one_size and (height, width) != (image, image)):
        yield _differs("vision_config.image_size", image, f"pictures are prepared as {height} x {width}")


def _differs(field: str, said: object, found: str) -> str:
    return f"{field} is {_short(said)}, but {found}: they do not belong together"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
