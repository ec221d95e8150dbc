"""Vectors of every family are those of transformers' own classes and processors, called directly.

The models are small and random, of the real classes, with tokenizers of the kinds that these families have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import corpus
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from clipsearch.models.disk.files import ModelFiles, locate
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.models.in_torch.siglip_tokenizer import converted
from clipsearch.models.preprocessing import Patches

TOLERANCE = 2e-6
"""On components of unit vectors in float32."""
TEXTS = [
    "dog",
    "a dog is sleeping on the beach",
    "개가 자고 있다 😀",
    "Hello,   World! It's... ",
    "собака спит",
    "un chien dort sur la plage " * 10,
    "",
]
SIZES = [(64, 64), (300, 100), (50, 333), (31, 20), (640, 480), (17, 600)]
WITHOUT_TORCH = ("siglip", "siglip2-fixed", "siglip2", "clipseg", "metaclip_2")


class Plain(NamedTuple):
    """What transformers gives for `TEXTS` and pictures of `SIZES`, and what it gives it with."""

    model: Any
    tokenizer: Any
    images: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for w, h in SIZES]


def unit(output: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401  (transformers')
    return np.asarray(torch.nn.functional.normalize(output.pooler_output, dim=-1).numpy())


@pytest.fixture(scope="module", params=families.FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Plain]:
    """Each family: its name, a model's folder, and what transformers makes of it."""
    name = request.param
    folder = families.make(name, tmp_path_factory.mktemp("models") / name)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    fixed = "siglip" in name
    longest = 16 if fixed else getattr(model.config.text_config, "max_position_embeddings", 20)
    if name in ("altclip", "chinese_clip", "vision-text-dual-encoder"):
        longest = tokenizer.model_max_length
    tokens = tokenizer(
        TEXTS, padding="max_length" if fixed else True, truncation=True, max_length=longest, return_tensors="pt"
    )
    with torch.no_grad():
        texts = unit(model.get_text_features(**tokens))
        images = unit(model.get_image_features(**processor(images=pictures(), return_tensors="pt")))
    return name, folder, Plain(model, tokenizer, images, texts)


@pytest.fixture
def encoder(made: tuple[str, Path, Plain]) -> Encoder:
    return Encoder(locate(str(made[1])), "cpu", "fp32", exact=True)


def test_images_equal_transformers(made: tuple[str, Path, Plain], encoder: Encoder) -> None:
    ours = encoder.encode_images([encoder.preprocessing(picture) for picture in pictures()])
    assert ours.shape == (len(SIZES), encoder.dim)
    assert np.ptp(ours, axis=0).max() > 0.01  # pictures differ at all
    np.testing.assert_allclose(ours, made[2].images, atol=TOLERANCE, rtol=0)


def test_texts_equal_transformers_and_need_no_torch_where_that_is_said(
    made: tuple[str, Path, Plain], encoder: Encoder
) -> None:
    name, _, plain = made
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), plain.texts, atol=TOLERANCE, rtol=0)
    assert encoder.save_text_tower() == (name in WITHOUT_TORCH)
    tower = tower_cache.load(encoder.fingerprint)
    if tower is None:
        assert name not in WITHOUT_TORCH
        return
    assert tower.dim == encoder.dim
    assert tower.logits == encoder.logits
    np.testing.assert_allclose(tower.encode_texts(TEXTS), plain.texts, atol=TOLERANCE, rtol=0)
    alone = np.concatenate([tower.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, plain.texts, atol=TOLERANCE, rtol=0)


def test_logits_equal_those_of_the_model(made: tuple[str, Path, Plain], encoder: Encoder) -> None:
    name, _, plain = made
    cosines = plain.images @ plain.texts.T
    parameters = {
        name: parameter.detach().numpy() for name, parameter in plain.model.named_parameters("", recurse=False)
    }
    wanted = cosines * np.exp(parameters["logit_scale"]) + parameters.get("logit_bias", 0.0)
    np.testing.assert_allclose(encoder.logits.of(cosines), wanted, atol=1e-4)
    assert (encoder.logits.bias is not None) == ("siglip" in name)
    probabilities = encoder.logits.probabilities(cosines, axis=1)
    theirs = torch.from_numpy(wanted)
    if "siglip" in name:
        np.testing.assert_allclose(probabilities, theirs.sigmoid(), atol=1e-5)
    else:
        np.testing.assert_allclose(probabilities, theirs.softmax(dim=1), atol=1e-5)


def test_token_ids_equal_transformers(made: tuple[str, Path, Plain], encoder: Encoder) -> None:
    tokenizer = made[2].tokenizer
    for text in [*corpus(), *TEXTS]:
        wanted = tokenizer(text, truncation=True, max_length=encoder.context).input_ids
        assert encoder.tokenize(text).ids == wanted, text


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_padding_is_as_the_tokenizer_says(tmp_path: Path, *, left: bool, masked: bool) -> None:
    torch.manual_seed(1)
    names = ["input_ids", *(["attention_mask"] if masked else [])]
    folder = tmp_path / "model"
    folder.mkdir()
    families.siglip2(folder, model_input_names=names, padding_side="left" if left else "right")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    assert sorted(tokens) == sorted(names)
    with torch.no_grad():
        wanted = unit(model.get_text_features(**tokens))
    encoder = Encoder(locate(str(folder)), "cpu", "fp32")
    assert encoder.save_text_tower()
    tower = tower_cache.load(encoder.fingerprint)
    assert tower is not None
    assert (tower.shape.fixed and tower.shape.fixed.masked, tower.shape.fixed and tower.shape.fixed.left) == (
        masked,
        left,
    )
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), wanted, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(tower.encode_texts(TEXTS), wanted, atol=TOLERANCE, rtol=0)


# -- SigLIP's tokenizer --------------------------------------------------------------------------------------

LETTERS = "abc XYZ ,.!?'\"-_éüßñ ΣσςŁł日本語한국어😀🐶\u200d\t\n İı１ﬁ№…“”«»▁"
ODD = [
    "",
    "   ",
    "Hello, World!!! it's",
    "ΣΑΣ İstanbul",
    "👨\u200d👩\u200d👧",
    "ﬁne \uff46\uff4c\uff11",
    "a\u00a0b\u3000c\td\ne",
    "x" * 80,
]


@pytest.fixture(scope="module", params=[True, False])
def siglip_tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """SiglipTokenizer and ours, in lower case or not."""
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    pieces = families.sentence_pieces(tmp_path_factory.mktemp("pieces"))
    theirs: Any = SiglipTokenizer(str(pieces), do_lower_case=request.param)
    return theirs, converted(theirs)


def test_siglips_tokenizer_gives_the_same_ids_without_sentencepiece(siglip_tokenizers: tuple[Any, Any]) -> None:
    theirs, ours = siglip_tokenizers
    rng = np.random.default_rng(0)
    made_up = ["".join(rng.choice(list(LETTERS), size)) for size in rng.integers(1, 40, 2000)]
    for text in [*corpus(), *ODD, *made_up]:
        assert ours.encode(text).ids == theirs(text).input_ids, repr(text)


# -- pictures of any proportions -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (1000, 300), (300, 1000), (1, 5000), (5000, 1), (16, 16), (4032, 3024)])
@pytest.mark.parametrize("most", [16, 256, 1024])
def test_the_size_of_an_image_in_patches_is_transformers_own(size: tuple[int, int], most: int) -> None:
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    width, height = Patches(16, most).size(*size)
    assert (height, width) == get_image_size_for_max_num_patches(size[1], size[0], 16, most)
    assert 0 < width * height <= most * 16**2


def test_reduced_decoding_is_close_for_images_of_any_proportions(tmp_path: Path) -> None:
    folder = families.make("siglip2", tmp_path / "model")
    files = ModelFiles("test", folder, None)
    quick, exact = Encoder(files, "cpu", "fp32"), Encoder(files, "cpu", "fp32", exact=True)
    enough = quick.preprocessing.enough
    assert enough is not None
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    for width, height in [(1600, 1600), (1600, 400), (700, 1600)]:
        pixels = np.stack([np.tile(ramp[:width], (height, 1))] * 3, axis=2)
        picture = Image.fromarray(pixels)
        factor = min(width, height) // enough or 1
        smaller = picture.reduce(factor)
        some = quick.encode_images([quick.preprocessing(smaller)])
        others = exact.encode_images([exact.preprocessing(picture)])
        assert float((some * others).sum()) > 0.9999
