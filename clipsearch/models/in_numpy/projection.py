"""Copies of a model in which nothing but the projection of texts is changed.

Everything else stays as it is to the byte, so the copy embeds images as the model does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import ModelFiles, model_paths, weight_files
from clipsearch.models.disk.integrity import Tensor, read_header
from clipsearch.unit import Array

_PROJECTIONS = (("text_projection.weight",), ("text_model.head.weight", "text_model.head.bias"))
"""The tensors that compute vectors of texts from the text tower's last hidden state: CLIP's, and SigLIP's."""
_DTYPES: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


def check_projection(files: ModelFiles, dim: int) -> None:
    """Check, before any work, that `with_changed_projection` can be used on a model with D = `dim`.

    Raises:
        ModelError: its projection is not one matrix, or not in safetensors of transformers' layout.
    """
    _find(files, files.folder, dim)


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
    places = _find(files, files.folder, len(change))
    for path in model_paths(files.folder):
        shutil.copyfile(path, folder / path.name)
    for name, tensor in places:
        with (folder / name).open("r+b") as file:
            file.seek(tensor.start)
            raw = np.frombuffer(file.read(tensor.end - tensor.start), _DTYPES[tensor.dtype])
            values = _widened(raw).reshape(tensor.shape)
            file.seek(tensor.start)
            file.write(_narrowed(change.astype(np.float64) @ values, tensor.dtype).tobytes())


def _find(files: ModelFiles, folder: Path, dim: int) -> list[tuple[str, Tensor]]:
    """Return file and place of each tensor of the projection."""
    if files.layout != "transformers" or any(path.suffix != ".safetensors" for path in weight_files(folder)):
        raise ModelError(
            f"{folder} has no safetensors in the layout of transformers, which tuning copies and changes. Save the "
            "model with `save_pretrained` of transformers, and name that folder."
        )
    found = {name: (path.name, tensor) for path in weight_files(folder) for name, tensor in read_header(path).items()}
    for names in _PROJECTIONS:
        places = [found[name] for name in names if name in found]
        if len(places) == len(names) and all(
            tensor.shape[0] == dim and tensor.dtype in _DTYPES for _, tensor in places
        ):
            return places
    raise ModelError(f"The texts of the model in {folder} are not projected by one matrix, so it cannot be tuned so.")


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
