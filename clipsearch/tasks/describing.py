"""Describes a model without loading it, from the catalogue, its configuration and the headers of its weights.

Weights are read only for the fingerprint, once, and no model library is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsearch.errors import ModelError
from clipsearch.models.disk import files as model_files
from clipsearch.models.disk.catalog import ENTRIES, Entry, find
from clipsearch.models.disk.files import ModelFiles, read_config
from clipsearch.models.disk.integrity import Tensor, read_header
from clipsearch.models.disk.names import canonical, repository_of, without_revision
from clipsearch.models.disk.open_clip import CONFIG

Config = Mapping[str, Any]

_MILLION = 1e6
_IMAGE_LAYERS = re.compile(r"(?:vision_model\.encoder\.layers|visual\.transformer\.resblocks)\.(\d+)\.")
_TEXT_LAYERS = re.compile(
    r"(?:text_model\.encoder\.layers|^transformer\.resblocks|text\.transformer\.resblocks|"
    r"text_model\.(?:roberta\.)?encoder\.layer)\.(\d+)\."
)
_IMAGE_PATCHES = ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight")
_TOKENS = ("token_embedding.weight", "word_embeddings.weight")
_COUNTERS = ("position_ids", "num_batches_tracked")
"""Endings of the names of tensors that are not parameters."""


@dataclass(frozen=True)
class Listed:
    """A model of the catalogue, and its files if it is on this disk."""

    entry: Entry
    files: ModelFiles | None
    """None if it is not on this disk."""
    bytes: int | None
    """Size of the files; None if the model is not on this disk."""


@dataclass(frozen=True)
class Tower:
    """The size of one tower. A field is None if neither the configuration nor the weights give it."""

    layers: int | None
    width: int | None
    heads: int | None


@dataclass(frozen=True)
class Inside:
    """The facts that the files of a model contain."""

    family: str
    """The `model_type` of transformers, or open_clip."""
    dim: int | None
    """D, the length of its vectors."""
    parameters: float | None
    """Number of all parameters in millions; None if the weights are not in safetensors, whose header can be read
    alone."""
    dtypes: tuple[str, ...]
    """The types in which the weights are stored, in the notation of safetensors."""
    image: Tower
    text: Tower
    image_size: int | None
    """Height and width in pixels of the input of the image tower."""
    patch: int | None
    context: int | None
    """Largest number of tokens that the text tower reads."""
    preprocessing: str
    """The steps, in words."""
    fingerprint: str
    text_tower: Path
    """The folder in the cache where the text tower for queries is, or would be."""
    files: tuple[tuple[str, int], ...]
    """Name of each file, and its size in bytes."""


@dataclass(frozen=True)
class Description:
    """The catalogue entry of a model and the facts from its files."""

    name: str
    repository: str | None
    entry: Entry | None
    """Its entry in the catalogue, if there is one."""
    files: ModelFiles | None
    """None if it is not on this disk."""
    inside: Inside | None


def listed() -> list[Listed]:
    """List the catalogue, and which of its models are on this disk, without network and without reading weights."""
    found = []
    for entry in ENTRIES:
        files = None
        with suppress(ModelError):  # a damaged list of parts, which `describe` reports
            files = model_files.find_local(entry.name)
        found.append(Listed(entry, files, _size(files) if files else None))
    return found


def describe(name: str) -> Description:
    """Describe the model `name` without network. If it is not on this disk, only its catalogue entry is returned.

    Raises:
        ModelError: there is no such model, its files are incomplete or damaged, or it is neither on this disk nor in
            the catalogue.
    """
    name = canonical(name)
    files = model_files.find_local(name)
    base = without_revision(name)
    entry, repository = find(base), repository_of(name)
    if files is None:
        if entry is None:
            raise ModelError(
                f"Model {name!r} is not on this disk, and nothing is known of it.", hint="pull", model=name
            )
        return Description(name, repository, entry, None, None)
    model_files.check(files)
    return Description(name, repository, entry, files, _inside(files))


def _paths(files: ModelFiles) -> list[Path]:
    return model_files.model_paths(files.folder)


def _size(files: ModelFiles) -> int:
    return sum(path.stat().st_size for path in _paths(files))


def _inside(files: ModelFiles) -> Inside:
    # These import numpy, which a list of models does not need.
    from clipsearch.models.in_numpy.tower_cache import tower_folder
    from clipsearch.models.in_torch.loading import known_fingerprint

    tensors: dict[str, Tensor] = {}
    for path in model_files.weight_files(files.folder):
        if path.suffix == ".safetensors":
            tensors |= read_header(path)
    given = read_config(files.folder, CONFIG if files.layout == "open_clip" else "config.json")
    config, image, text = _parts(given)
    fingerprint = known_fingerprint(files.folder)
    parameters = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTERS)}
    patch = _shape(tensors, lambda name: name.endswith(_IMAGE_PATCHES))
    tokens = _shape(tensors, lambda name: name.endswith(_TOKENS))
    return Inside(
        family="open_clip" if files.layout == "open_clip" else str(config.get("model_type")),
        dim=_dim(config, text, tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in parameters.values()) / _MILLION if parameters else None,
        dtypes=tuple(sorted({tensor.dtype for tensor in parameters.values()})),
        image=_tower(image, tensors, _IMAGE_LAYERS, patch[0] if patch else None),
        text=_tower(text, tensors, _TEXT_LAYERS, tokens[1] if tokens else None),
        image_size=_number(image, "image_size"),
        patch=_number(image, "patch_size") or (patch[-1] if patch else None),
        context=_number(text, "max_position_embeddings", "context_length") or _positions(tensors),
        preprocessing=_preprocessing(files, given),
        fingerprint=fingerprint,
        text_tower=tower_folder(fingerprint),
        files=tuple((path.name, path.stat().st_size) for path in _paths(files)),
    )


def _parts(config: Config) -> tuple[Config, Config, Config]:
    """Split a configuration of transformers or open_clip into those of model, image tower and text tower."""
    whole = _mapping(config, "model_cfg") or config
    image, text = (_mapping(whole, f"{part}_config") or _mapping(whole, f"{part}_cfg") for part in ("vision", "text"))
    return whole, image, text


def _mapping(config: Config, name: str) -> Config:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _number(config: Config, *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _shape(tensors: Mapping[str, Tensor], wanted: Callable[[str], bool]) -> tuple[int, ...] | None:
    return next((tensor.shape for name, tensor in tensors.items() if wanted(name) and len(tensor.shape) > 1), None)


def _positions(tensors: Mapping[str, Tensor]) -> int | None:
    """Number of position embeddings of a text tower of CLIP's kind."""
    names = ("text_model.embeddings.position_embedding.weight", "positional_embedding")
    shape = _shape(tensors, lambda name: name in names)
    return shape[0] if shape else None


def _dim(config: Config, text: Config, tensors: Mapping[str, Tensor]) -> int | None:
    """Return D, which is the number of rows (transformers) or columns (open_clip) of the text tower's last layer."""
    rows = _shape(tensors, lambda name: name.endswith(("text_projection.weight", "text_model.head.weight")))
    columns = _shape(tensors, lambda name: name == "text_projection")
    if rows or columns:
        return rows[0] if rows else columns[1] if columns else None
    return _number(config, "projection_dim", "embed_dim") or _number(text, "projection_size", "projection_dim")


def _tower(config: Config, tensors: Mapping[str, Tensor], layers: re.Pattern[str], width: int | None) -> Tower:
    numbers = [int(match[1]) for name in tensors if (match := layers.search(name))]
    return Tower(
        layers=max(numbers) + 1 if numbers else _number(config, "num_hidden_layers", "layers"),
        width=width or _number(config, "hidden_size", "width"),
        heads=_number(config, "num_attention_heads", "heads"),
    )


def _preprocessing(files: ModelFiles, config: Config) -> str:
    """Describe the preprocessing of an image in words."""
    if files.layout == "open_clip":
        given = _mapping(config, "preprocess_cfg")
        mode, names = given.get("resize_mode", "shortest"), ("mean", "std")
        steps = ["resize both sides" if mode == "squash" else "resize the shorter side, crop the centre"]
    else:
        path = next((p for p in model_files.text_files(files.folder) if "processor_config" in p.name), None)
        given = read_config(files.folder, path.name) if path else {}
        given, names = _mapping(given, "image_processor") or given, ("image_mean", "image_std")
        steps = [_resized(given)]
        if given.get("do_center_crop", "crop_size" in given):
            steps.append(f"crop {_sides(given.get('crop_size'))}")
    mean, std = (given.get(name) for name in names)
    return ", ".join([*steps, *([f"mean {_list(mean)}, std {_list(std)}"] if mean and std else [])])


def _resized(given: Config) -> str:
    size = given.get("size")
    if isinstance(size, dict) and "shortest_edge" in size:
        return f"resize the shorter side to {size['shortest_edge']}"
    return f"resize to {_sides(size)}" if size else "resize"


def _sides(size: object) -> str:
    if isinstance(size, dict) and {"height", "width"} <= set(size):
        return f"{size['height']} x {size['width']}"
    return str(size)


def _list(values: object) -> str:
    numbers = values if isinstance(values, list) else [values]
    return " ".join(f"{number:.4g}" if isinstance(number, float) else str(number) for number in numbers)
