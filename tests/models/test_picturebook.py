"""The bundled model: size, layout, and that it understands the samples."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

import numpy as np
from conftest import PICTUREBOOK, SAMPLES

import clipsearch
from clipsearch.index.reading import Store


def test_it_is_small_and_loads_as_it_is() -> None:
    import torch
    from transformers import AutoProcessor, AutoTokenizer, CLIPModel

    assert (PICTUREBOOK / "model.safetensors").stat().st_size <= 12_000_000
    model = CLIPModel.from_pretrained(PICTUREBOOK)
    config = cast("Any", model.config)
    assert model.config.projection_dim == 512
    assert model.dtype == torch.float16
    tokenizer = AutoTokenizer.from_pretrained(PICTUREBOOK)
    assert tokenizer("a dog").input_ids[-1] == tokenizer.eos_token_id == config.text_config.eos_token_id
    processor = AutoProcessor.from_pretrained(PICTUREBOOK)
    assert "pixel_values" in processor.image_processor.model_input_names


def test_its_card_says_what_it_is() -> None:
    card = (PICTUREBOOK / "README.md").read_text("utf-8")
    assert "photograph" in card
    assert "license: mit" in card


def test_its_index_of_the_samples_is_a_plain_float16_matrix(sample_index: Path) -> None:
    matrix = np.load(sample_index / ".clipsearch" / "embeddings.npy")
    assert matrix.shape[0] >= 200
    assert matrix.shape[1] == 512
    assert matrix.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(matrix.astype(np.float32), axis=1), 1, atol=1e-3)


def test_captions_find_their_sample(sample_index: Path) -> None:
    """Held-out drawings, one caption each; several pictures can fit a caption, so this is less than 100 %."""
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found_first = found_in_five = 0
    with clipsearch.open_index(sample_index) as index:
        for row in rows:
            hits = [str(hit.path).split("sample-images/")[1] for hit in index.search(row["caption"], k=5)]
            found_first += hits[0] == row["image"]
            found_in_five += row["image"] in hits
    assert found_first / len(rows) > 0.9
    assert found_in_five / len(rows) > 0.97


def test_the_model_is_named_in_the_index(sample_index: Path) -> None:
    store = Store.open(sample_index / ".clipsearch")
    model = store.model()
    store.close()
    assert model is not None
    assert (model.name, model.dim) == ("picturebook", 512)
