"""Copies of a model in which some weights are changed, and everything else stays as it is to the byte.

Where nothing but the projection of texts is changed, the copy embeds images as the model does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import ModelFiles, model_paths, weight_files
from clipsearch.models.disk.integrity import Tensor, read_header
from clipsearch.unit import Array

Change = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.floating]]
"""Returns the new values of a tensor, of the same shape."""
_PROJECTIONS = (("text_projection.weight",), ("text_model.head.weight", "text_model.head.bias"))
"""The tensors that compute vectors of texts from the text tower's last hidden state: CLIP's, and SigLIP's."""
_DTYPES: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


class _Place(NamedTuple):
    """Where a tensor is."""

    file: str
    tensor: Tensor


def check_projection(files: ModelFiles, dim: int) -> None:
    """Check, before any work, that `with_changed_projection` can be used on a model with D = `dim`.

    Raises:
        ModelError: its projection is not one matrix, or not in safetensors of transformers' layout.
    """
    if not _projection(files, dim):
        raise ModelError(
            f"The texts of the model in {files.folder} are not projected by one matrix, so it cannot be tuned so."
        )


def projection_changes(files: ModelFiles, change: Array) -> dict[str, Change]:
    """Return the changes that replace the vector v of every text by `change` @ v before it is scaled to length 1.

    Args:
        files: The model.
        change: (D, D) matrix.

    Returns:
        Changes for `with_changed_weights`; none if the texts are not projected by one matrix.

    Raises:
        ModelError: the weights are not in safetensors of transformers' layout.
    """
    double = change.astype(np.float64)
    return dict.fromkeys(_projection(files, len(change)), lambda values: double @ values)


def with_changed_projection(files: ModelFiles, change: Array, folder: Path) -> None:
    """Copy a model, with the vector v of every text replaced by `change` @ v before it is scaled to length 1.

    Args:
        files: The model.
        change: (D, D) matrix.
        folder: An existing folder, which gets the files.

    Raises:
        ModelError: as for `check_projection`.
        OSError: the folder cannot be written.
    """
    check_projection(files, len(change))
    with_changed_weights(files, projection_changes(files, change), folder)


def check_weights(files: ModelFiles, names: Collection[str]) -> None:
    """Check, before any work, that `with_changed_weights` can change the tensors of these names.

    Raises:
        ModelError: one is missing, or they are not in safetensors of transformers' layout.
    """
    found = _places(files)
    if missing := sorted(set(names) - set(found)):
        raise ModelError(
            f"The weights in {files.folder} have other names than in transformers ({missing[0]} is missing), so they "
            "cannot be changed. Save the model with `save_pretrained` of transformers, and name that folder."
        )


def with_changed_weights(files: ModelFiles, changes: Mapping[str, Change], folder: Path) -> None:
    """Copy a model, with some tensors changed. Their types stay.

    Args:
        files: The model.
        changes: What to do with the values of the tensor of each name.
        folder: An existing folder, which gets the files.

    Raises:
        ModelError: as for `check_weights`.
        OSError: the folder cannot be written.
    """
    check_weights(files, changes)
    places = _places(files)
    for path in model_paths(files.folder):
        shutil.copyfile(path, folder / path.name)
    for name, change in changes.items():
        file_name, tensor = places[name]
        with (folder / file_name).open("r+b") as file:
            file.seek(tensor.start)
            raw = np.frombuffer(file.read(tensor.end - tensor.start), _DTYPES[tensor.dtype])
            values = change(_widened(raw).reshape(tensor.shape)).astype(np.float64)
            file.seek(tensor.start)
            file.write(_narrowed(values, tensor.dtype).tobytes())


def _projection(files: ModelFiles, dim: int) -> tuple[str, ...]:
    """Return the names of the tensors of the projection; none if there is no such matrix."""
    found = _places(files)
    for names in _PROJECTIONS:
        if all(name in found and found[name].tensor.shape[0] == dim for name in names):
            return names
    return ()


def _places(files: ModelFiles) -> dict[str, _Place]:
    """Return the places of all tensors of floating-point numbers by their names."""
    paths = weight_files(files.folder)
    if files.layout != "transformers" or any(path.suffix != ".safetensors" for path in paths):
        raise ModelError(
            f"{files.folder} has no safetensors in the layout of transformers, which tuning copies and changes. Save "
            "the model with `save_pretrained` of transformers, and name that folder."
        )
    return {
        name: _Place(path.name, tensor)
        for path in paths
        for name, tensor in read_header(path).items()
        if tensor.dtype in _DTYPES
    }


def _widened(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Convert to float64; uint16 stands for bfloat16, the upper half of a float32."""
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def _narrowed(values: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[Any]:
    """Convert to the type of a tensor, rounded to the nearest, as its file has it."""
    if dtype != "BF16":
        return values.astype(_DTYPES[dtype])
    bits = values.astype("<f4").view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
