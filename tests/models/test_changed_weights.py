"""Copies of a model with another projection of texts, as transformers loads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from conftest import PICTUREBOOK
from transformers import AutoModel, CLIPModel

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import locate
from clipsearch.models.in_numpy.changed_weights import check_projection, with_changed_projection


def in_other_numbers(folder: Path, dtype: torch.dtype) -> Path:
    shutil.copytree(PICTUREBOOK, folder)
    CLIPModel.from_pretrained(PICTUREBOOK, dtype=torch.float32).to(dtype).save_pretrained(folder)
    return folder


def make(kind: str, folder: Path) -> Path:
    if kind in ("float32", "float16", "bfloat16"):
        return in_other_numbers(folder, getattr(torch, kind))
    return families.make(kind, folder)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2), ("siglip", 1e-5), ("siglip2", 1e-5), ("altclip", 1e-5)],
)
def test_texts_are_changed_by_the_matrix_and_nothing_else_is(kind: str, tolerance: float, tmp_path: Path) -> None:
    source, copy = make(kind, tmp_path / "source"), tmp_path / "copy"
    base = AutoModel.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        ids = torch.tensor([[1, 5, 9, 2, 7, 3], [1, 4, 4, 8, 6, 3]])
        texts = base.get_text_features(ids).pooler_output
        dim = texts.shape[1]
        matrix = (np.eye(dim) + 0.1 * np.random.default_rng(0).standard_normal((dim, dim))).astype(np.float32)
        copy.mkdir()
        check_projection(locate(str(source)), dim)
        with_changed_projection(locate(str(source)), matrix, copy)
        tuned = AutoModel.from_pretrained(copy, dtype=torch.float32)
        wanted = texts @ torch.from_numpy(matrix).T
        found = tuned.get_text_features(ids).pooler_output
        assert torch.nn.functional.cosine_similarity(found, wanted).min() > 1 - tolerance
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))
    changed = [name for name, value in base.state_dict().items() if not torch.equal(value, tuned.state_dict()[name])]
    assert changed in (["text_projection.weight"], ["text_model.head.weight", "text_model.head.bias"])


def test_a_model_without_such_a_projection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not projected by one matrix"):
        check_projection(locate(str(families.make("groupvit", tmp_path / "model"))), 32)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    shutil.copytree(PICTUREBOOK, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    model = CLIPModel.from_pretrained(PICTUREBOOK, dtype=torch.float32)
    torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors"):
        check_projection(locate(str(tmp_path / "model")), 512)
