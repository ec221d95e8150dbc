"""The numpy text tower gives what transformers' text tower gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import PICTUREBOOK, make_clip

from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.activations import gelu
from clipsearch.models.in_numpy.text_tower import TextTower
from clipsearch.models.in_numpy.tower_cache import tower_folder
from clipsearch.models.in_torch.encoder import Encoder

TEXTS = [
    "dog",
    "a dog is sleeping",
    "two red cars on a beach at night",
    "  Ünïcode,   UPPER case & punctuation!? 3 ",
    "snow",
    "a very long caption about a dog, a cat, a horse, a cow, a rabbit, a pig, a sheep, a lion and an owl " * 3,
]
TOLERANCE = 4e-6
"""On components of unit vectors in float32."""


def encoders(folder: Path) -> tuple[Encoder, TextTower]:
    encoder = Encoder(ModelFiles("test", folder, None), "cpu")
    encoder.save_text_tower()
    tower = tower_cache.load(encoder.fingerprint)
    assert tower is not None
    return encoder, tower


def test_bundled_model_equals_transformers() -> None:
    encoder, tower = encoders(PICTUREBOOK)
    assert tower.dim == 512
    np.testing.assert_allclose(tower.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("eos", [1, 2])
@pytest.mark.parametrize("layers", [1, 3])
def test_random_towers_equal_transformers(tmp_path: Path, activation: str, eos: int, layers: int) -> None:
    encoder, tower = encoders(make_clip(tmp_path, activation=activation, eos=eos, layers=layers))
    np.testing.assert_allclose(tower.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_every_length_up_to_the_context_equals_transformers(tmp_path: Path, activation: str) -> None:
    encoder, tower = encoders(make_clip(tmp_path, activation=activation, context=77))
    texts = [" ".join(["dog"] * n) for n in range(80)]
    lengths = {len(tower.tokenize(text).ids) for text in texts}
    assert lengths == set(range(2, 78))  # every text has a start and an end
    together = tower.encode_texts(texts)
    np.testing.assert_allclose(together, encoder.encode_texts(texts), atol=TOLERANCE, rtol=0)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(tower.encode_texts([text])[0], vector, atol=TOLERANCE, rtol=0)


def test_a_batch_equals_single_texts(small_clip: Path) -> None:
    _, tower = encoders(small_clip)
    texts = TEXTS * 20  # more than are computed together
    alone = np.concatenate([tower.encode_texts([text]) for text in TEXTS] * 20)
    np.testing.assert_allclose(tower.encode_texts(texts), alone, atol=TOLERANCE, rtol=0)


def test_the_cut_of_a_long_text_is_where_the_model_stops_reading(small_clip: Path) -> None:
    _, tower = encoders(small_clip)
    assert tower.tokenize("a dog").cut_at is None
    text = "dog " * 40
    cut = tower.tokenize(text).cut_at
    assert cut is not None
    assert text[:cut].split() == ["dog"] * (tower.shape.context - 2)
    np.testing.assert_array_equal(tower.encode_texts([text]), tower.encode_texts([text[:cut]]))


def test_gelu_equals_the_error_function() -> None:
    import torch

    x = np.linspace(-9, 9, 20_001, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(gelu(x), exact, atol=2e-6, rtol=0)


def test_a_tower_is_written_whole_or_not_at_all(small_clip: Path) -> None:
    encoder, _ = encoders(small_clip)
    folder = tower_folder(encoder.fingerprint)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("texts-")}  # which a query leaves
    tables = {"tokens.safetensors", "tokens.json"}
    notes = {"checksums.json", "compared.json"}
    assert names == {"text_tower.safetensors", "text_tower.json", "tokenizer.json"} | tables | notes
    assert [path for path in folder.parent.iterdir() if path.name.startswith("tmp")] == []
    assert tower_cache.load("0" * 32) is None
