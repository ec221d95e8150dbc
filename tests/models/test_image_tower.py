"""The numpy image tower gives what transformers' image towers give, and takes no model that it cannot compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import PICTUREBOOK, SAMPLES, make_clip
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.models.in_numpy import extraction
from clipsearch.models.in_numpy.image_tower import ImageShape, ImageTower
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.models.in_torch.image_encoder import ImageEncoder
from clipsearch.models.preprocessing import Preprocessing
from clipsearch.unit import are_unit

TOLERANCE = 1e-5
"""On components of unit vectors in float32."""
SIZES = [(64, 64), (300, 100), (50, 333), (31, 20), (640, 480), (17, 600)]
COMPUTED = ("siglip", "siglip2-fixed", "siglip2", "clipseg", "metaclip_2")
Array = npt.NDArray[np.float32]


def pictures(sizes: list[tuple[int, int]] = SIZES) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]


def tower_of(folder: Path) -> ImageTower | None:
    files = ModelFiles("test", folder, None)
    found = extraction.image_tower(files)
    return found and ImageTower(*found, Preprocessing.load(files))


def existing(folder: Path) -> ImageTower:
    tower = tower_of(folder)
    assert tower is not None
    return tower


def in_torch(tower: ImageTower) -> ImageEncoder:
    return ImageEncoder.of_tower("test", tower, EncoderOptions("cpu", "fp32"))


def transformers_own(folder: Path, images: list[Image.Image]) -> Array:
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        output = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
    return np.asarray(torch.nn.functional.normalize(output, dim=-1).numpy())


def exact_pixels(folder: Path, images: list[Image.Image]) -> list[npt.NDArray[np.uint8]]:
    exact = Preprocessing(**{**vars(Preprocessing.load(ModelFiles("test", folder, None))), "exact": True})
    return [exact(image) for image in images]


def change_config(folder: Path, **vision: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["vision_config"] |= vision
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_images_equal_transformers_where_a_family_is_computed(family: str, tmp_path: Path) -> None:
    folder = families.make(family, tmp_path / "model")
    tower = tower_of(folder)
    assert (tower is not None) == (family in COMPUTED)
    if tower is None:
        return
    ours, theirs = tower.encode_images(exact_pixels(folder, pictures())), transformers_own(folder, pictures())
    assert ours.dtype == np.float32
    assert ours.shape == (len(SIZES), tower.dim)
    assert np.ptp(ours, axis=0).max() > 0.01  # they differ at all
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    if tower.preprocessing.seen:
        of_torch = in_torch(tower).encode_images(exact_pixels(folder, pictures()))
        np.testing.assert_allclose(of_torch, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("threads", ["1", "2", None])
@pytest.mark.parametrize("family", ["clip", "siglip2"])
def test_one_image_equals_the_same_among_others_however_cores_share_the_work(
    family: str, threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_clip(tmp_path) if family == "clip" else families.make(family, tmp_path / "model")
    tower, pixels = existing(folder), exact_pixels(folder, pictures())
    together = tower.encode_images(pixels)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    alone = np.concatenate([tower.encode_images([one]) for one in pixels])
    np.testing.assert_allclose(alone, together, atol=1e-6, rtol=0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_every_activation_equals_transformers(activation: str, tmp_path: Path) -> None:
    folder = make_clip(tmp_path, activation=activation)
    tower, wanted = existing(folder), transformers_own(folder, pictures())
    for ours in (tower, in_torch(tower)):
        np.testing.assert_allclose(ours.encode_images(exact_pixels(folder, pictures())), wanted, atol=TOLERANCE, rtol=0)


def test_the_whole_model_in_torch_gives_the_same_of_every_sample_image() -> None:
    encoder, tower = Encoder(ModelFiles("test", PICTUREBOOK, None), "cpu", "fp32"), existing(PICTUREBOOK)
    paths = [path for path in sorted(SAMPLES.rglob("*")) if path.suffix in (".webp", ".jpg", ".png")]
    assert len(paths) > 50
    pixels = [tower.preprocessing(Image.open(path).convert("RGB")) for path in paths]
    whole = encoder.encode_images(pixels)
    np.testing.assert_allclose(tower.encode_images(pixels), whole, atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(in_torch(tower).encode_images(pixels), whole)  # the same weights, the same products


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_tower_in_torch_is_made_of_memory_that_cannot_be_written(precision: str, tmp_path: Path) -> None:
    tower = existing(make_clip(tmp_path))
    mapped = {name: array.copy() for name, array in tower.weights.items()}
    for array in mapped.values():
        array.flags.writeable = False
    threads = torch.get_num_threads()
    pixels = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), np.uint8)
    options = EncoderOptions("cpu", precision)
    of_mapped = ImageEncoder.of_tower("test", ImageTower(mapped, tower.shape, tower.preprocessing), options)
    ours = of_mapped.encode_images(pixels)
    np.testing.assert_array_equal(ours, ImageEncoder.of_tower("test", tower, options).encode_images(pixels))
    for name, array in tower.weights.items():
        np.testing.assert_array_equal(mapped[name], array)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_other_numbers_equal_transformers(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_clip(tmp_path)
    AutoModel.from_pretrained(folder).to(dtype).save_pretrained(folder)
    ours = existing(folder).encode_images(exact_pixels(folder, pictures()))
    np.testing.assert_allclose(ours, transformers_own(folder, pictures()), atol=TOLERANCE, rtol=0)


def test_weights_in_several_files_equal_transformers(tmp_path: Path) -> None:
    folder = make_clip(tmp_path)
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    ours = existing(folder).encode_images(exact_pixels(folder, pictures()))
    np.testing.assert_allclose(ours, transformers_own(folder, pictures()), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("kind", "config"), [(CLIPModel, CLIPConfig), (SiglipModel, SiglipConfig)], ids=["clip", "siglip"]
)
def test_what_a_configuration_leaves_out_is_what_transformers_takes(
    kind: type[CLIPModel | SiglipModel], config: type[CLIPConfig | SiglipConfig], tmp_path: Path
) -> None:
    text = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    made: Any = config(text_config=text, vision_config={"num_hidden_layers": 1})
    kind(made).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text("utf-8"))
    kept = {"model_type": written["model_type"], "vision_config": {"num_hidden_layers": 1}}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    found = extraction.image_tower(ModelFiles("test", tmp_path, None))
    assert found is not None
    theirs = written["vision_config"]
    names = ("num_attention_heads", "hidden_act", "layer_norm_eps", "patch_size")
    assert found[1] == ImageShape(*(theirs[name] for name in names))


def test_a_configuration_written_twice_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    folder = make_clip(tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["vision_config_dict"] = config["vision_config"] | {"hidden_act": "gelu"}
    path.write_text(json.dumps(config))
    ours = existing(folder).encode_images(exact_pixels(folder, pictures()))
    np.testing.assert_allclose(ours, transformers_own(folder, pictures()), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [{"hidden_act": "relu"}, {"hidden_size": 32}, {"num_hidden_layers": 3}, {"patch_size": [16, 16]}],
    ids=str,
)
def test_what_differs_from_the_weights_or_is_not_known_gives_no_tower(
    settings: dict[str, object], tmp_path: Path
) -> None:
    folder = make_clip(tmp_path)
    change_config(folder, **settings)
    assert tower_of(folder) is None


def test_a_tensor_that_is_missing_or_too_much_gives_no_tower(tmp_path: Path) -> None:
    folder = make_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    for changed in (
        {name: tensor for name, tensor in weights.items() if name != "vision_model.post_layernorm.bias"},
        weights | {"vision_model.encoder.layers.0.layer_scale": torch.ones(64)},
        weights | {"vision_model.post_layernorm.bias": torch.ones(64, dtype=torch.int32)},
    ):
        save_file(changed, folder / "model.safetensors")
        assert tower_of(folder) is None


def test_images_without_a_patch_for_each_position_are_not_seen(tmp_path: Path) -> None:
    tower = existing(make_clip(tmp_path))
    assert tower.sees(64, 64)
    assert not any(tower.sees(*size) for size in [(32, 32), (80, 80), (32, 128)])


def test_damaged_weights_give_what_is_no_vector_and_no_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = make_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["vision_model.encoder.layers.0.mlp.fc1.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors")
    vectors = existing(folder).encode_images(exact_pixels(folder, pictures()))
    assert not are_unit(vectors).any()
    assert not recwarn


@pytest.mark.parametrize("name", ["ViT-B/32", "SigLIP 2 B/32-256"])
def test_towers_of_real_size_equal_transformers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any
    text = {"num_hidden_layers": 1, "vocab_size": 1000, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if name == "ViT-B/32":
        side, model = 224, CLIPModel(CLIPConfig(text_config=text, vision_config={"num_hidden_layers": 3}))
    else:
        vision = {"image_size": 256, "patch_size": 32, "num_hidden_layers": 3}  # of twelve, which are alike
        side, model = 256, SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    size = {"image_processor_type": "SiglipImageProcessor", "size": {"height": side, "width": side}, "resample": 3}
    folder = families.save(model, tmp_path, families.FIXED_PICTURES | size)
    ours = existing(folder).encode_images(exact_pixels(folder, pictures()[:3]))
    np.testing.assert_allclose(ours, transformers_own(folder, pictures()[:3]), atol=TOLERANCE, rtol=0)
