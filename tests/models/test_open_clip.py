"""open_clip's configurations and weights under transformers' names, and what is refused; without open_clip itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip_reference
import pytest

from clipsearch.errors import ModelError
from clipsearch.models.disk.open_clip import CONFIG, Checkpoint

Tensors = dict[str, npt.NDArray[np.float32]]

VISION = {"image_size": 4, "patch_size": 2, "layers": 2, "width": 6, "head_width": 3, "mlp_ratio": 1.5}
TEXT = {"context_length": 5, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1}


def write(folder: Path, model: dict[str, Any] | None = None, preprocess: dict[str, Any] | None = None) -> Path:
    """A folder with a small model's configuration."""
    config = {"embed_dim": 3, "vision_cfg": VISION, "text_cfg": TEXT} | (model or {})
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess or {}}))
    return folder


def layer(name: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (hidden, width),
        "mlp.c_fc.bias": (hidden,),
        "mlp.c_proj.weight": (width, hidden),
        "mlp.c_proj.bias": (width,),
    }
    return {f"{name}.{part}": shape for part, shape in shapes.items()}


def tensors() -> Tensors:
    """A state dict for that configuration, as open_clip's `CLIP` has it; no number stands in it twice."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (5, 4),
        "text_projection": (4, 3),
        "logit_scale": (),
        "visual.class_embedding": (6,),
        "visual.positional_embedding": (5, 6),
        "visual.proj": (6, 3),
        "visual.conv1.weight": (6, 3, 2, 2),
        "visual.ln_pre.weight": (6,),
        "visual.ln_pre.bias": (6,),
        **layer("visual.transformer.resblocks.0", 6, 9),
        **layer("visual.transformer.resblocks.1", 6, 9),
        "visual.ln_post.weight": (6,),
        "visual.ln_post.bias": (6,),
        **layer("transformer.resblocks.0", 4, 16),
        "token_embedding.weight": (49408, 4),
        "ln_final.weight": (4,),
        "ln_final.bias": (4,),
    }
    found: Tensors = {}
    start = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        found[name] = np.arange(start, start + size, dtype=np.float32).reshape(shape)
        start += size
    return found


def test_names_and_shapes_are_those_of_a_clip_model(tmp_path: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel

    checkpoint = Checkpoint.load(write(tmp_path))
    with torch.device("meta"):
        wanted = CLIPModel(CLIPConfig(**checkpoint.clip_config())).state_dict()
    converted = checkpoint.converted(tensors())
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tuple(tensor.shape) for name, tensor in wanted.items()
    }


def test_every_number_is_where_it_belongs(tmp_path: Path) -> None:
    given = tensors()
    converted = Checkpoint.load(write(tmp_path)).converted(given)
    assert sum(tensor.size for tensor in converted.values()) == sum(tensor.size for tensor in given.values())
    fused = given["visual.transformer.resblocks.1.attn.in_proj_weight"]
    for i, part in enumerate(("q", "k", "v")):
        name = f"vision_model.encoder.layers.1.self_attn.{part}_proj"
        np.testing.assert_array_equal(converted[f"{name}.weight"], fused[6 * i : 6 * i + 6])
        fused_bias = given["visual.transformer.resblocks.1.attn.in_proj_bias"]
        np.testing.assert_array_equal(converted[f"{name}.bias"], fused_bias[6 * i : 6 * i + 6])
    np.testing.assert_array_equal(converted["visual_projection.weight"], given["visual.proj"].T)
    np.testing.assert_array_equal(converted["text_projection.weight"], given["text_projection"].T)
    for theirs, ours in (
        ("transformer.resblocks.0.mlp.c_fc.weight", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("transformer.resblocks.0.mlp.c_proj.bias", "text_model.encoder.layers.0.mlp.fc2.bias"),
        ("transformer.resblocks.0.ln_2.weight", "text_model.encoder.layers.0.layer_norm2.weight"),
        ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
        ("logit_scale", "logit_scale"),
    ):
        np.testing.assert_array_equal(converted[ours], given[theirs])


def test_configuration_is_clips(tmp_path: Path) -> None:
    config = Checkpoint.load(write(tmp_path, {"quick_gelu": True})).clip_config()
    vision, text = config["vision_config"], config["text_config"]
    assert config["projection_dim"] == 3
    assert (vision["hidden_size"], vision["num_attention_heads"], vision["intermediate_size"]) == (6, 2, 9)
    assert (vision["image_size"], vision["patch_size"], vision["num_hidden_layers"]) == (4, 2, 2)
    assert (text["hidden_size"], text["num_attention_heads"], text["intermediate_size"]) == (4, 2, 16)
    assert (text["max_position_embeddings"], text["vocab_size"], text["eos_token_id"]) == (5, 49408, 49407)
    assert vision["hidden_act"] == text["hidden_act"] == "quick_gelu"
    plain = Checkpoint.load(write(tmp_path)).clip_config()
    assert plain["vision_config"]["hidden_act"] == plain["text_config"]["hidden_act"] == "gelu"


def test_what_a_configuration_leaves_out_is_open_clips_default(tmp_path: Path) -> None:
    config = Checkpoint.load(write(tmp_path, {"vision_cfg": {}, "text_cfg": {}})).clip_config()
    vision, text = config["vision_config"], config["text_config"]
    assert (vision["hidden_size"], vision["num_attention_heads"], vision["num_hidden_layers"]) == (768, 12, 12)
    assert (vision["image_size"], vision["patch_size"], vision["intermediate_size"]) == (224, 16, 3072)
    assert (text["hidden_size"], text["num_attention_heads"], text["max_position_embeddings"]) == (512, 8, 77)


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name if name.startswith(("visual", "logit")) else f"text.{name}",  # custom_text: true
        lambda name: f"module.{name}",  # trained in parallel
    ],
)
def test_other_names_of_the_same_weights_are_understood(tmp_path: Path, renamed: Any) -> None:  # noqa: ANN401
    checkpoint = Checkpoint.load(write(tmp_path, {"custom_text": True, "init_logit_scale": 2.0}))
    given = {renamed(name): tensor for name, tensor in tensors().items()}
    given |= {renamed("attn_mask"): np.zeros((5, 5), np.float32), renamed("logit_scale"): np.full(1, 7, np.float32)}
    converted = checkpoint.converted(given)
    assert converted["logit_scale"].shape == ()
    assert converted["logit_scale"] == 7
    wanted = checkpoint.converted(tensors())
    assert converted.keys() == wanted.keys()
    np.testing.assert_array_equal(converted["text_projection.weight"], wanted["text_projection.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ln_final.bias": None}, "ln_final.bias"),
        ({"logit_scale": None}, "logit_scale"),
        ({"logit_bias": np.zeros((), np.float32)}, "logit_bias"),
        ({"visual.transformer.resblocks.2.ln_1.bias": np.zeros(6)}, "resblocks.2.ln_1.bias"),
        ({"visual.proj": None, "visual.head": np.zeros(1)}, "visual.proj visual.head"),
        ({"visual.proj": np.zeros((3, 6))}, "visual.proj 3 x 6 6 x 3"),
        ({"visual.positional_embedding": np.zeros((50, 6))}, "visual.positional_embedding 50 x 6 5 x 6"),
        ({"ln_final.bias": np.zeros(())}, "ln_final.bias number 4"),
        ({"logit_scale": np.zeros(3)}, "logit_scale 3 number"),
    ],
)
def test_weights_that_do_not_belong_to_the_configuration_are_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    given = {name: tensor for name, tensor in (tensors() | change).items() if tensor is not None}
    with pytest.raises(ModelError, match=re.escape(said).replace(r"\ ", ".* ")) as caught:
        Checkpoint.load(write(tmp_path)).converted(given)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"vision_cfg": VISION | {"layers": [3, 4, 6, 3]}}, "ResNet"),
        ({"vision_cfg": VISION | {"timm_model_name": "convnext_base"}}, "timm"),
        ({"vision_cfg": VISION | {"attentional_pool": True}}, "attentional pooling"),
        ({"vision_cfg": VISION | {"pool_type": "avg"}}, "'avg'"),
        ({"vision_cfg": VISION | {"no_ln_pre": True}}, "no norm"),
        ({"vision_cfg": VISION | {"ls_init_value": 1e-4}}, "layer scale"),
        ({"vision_cfg": VISION | {"image_size": [4, 6]}}, "image size.* square"),
        ({"vision_cfg": VISION | {"image_size": 5}}, "patches"),
        ({"vision_cfg": VISION | {"rope": True}}, "rope"),
        ({"text_cfg": TEXT | {"hf_model_name": "xlm-roberta-base"}}, "text tower"),
        ({"text_cfg": TEXT | {"hf_tokenizer_name": "bert-base-uncased"}}, "tokenizer other"),
        ({"text_cfg": TEXT | {"tokenizer_kwargs": {"clean": "canonicalize"}}}, "tokenizer with settings"),
        ({"text_cfg": TEXT | {"no_causal_mask": True}}, "text attention"),
        ({"text_cfg": TEXT | {"pool_type": "last"}}, "'last'"),
        ({"text_cfg": TEXT | {"proj_type": "none"}}, "'none'"),
        ({"text_cfg": TEXT | {"embed_cls": True}}, "class token"),
        ({"text_cfg": TEXT | {"qk_norm": True}}, "queries and keys"),
        ({"text_cfg": TEXT | {"vocab_size": 32000}}, "32000.* 49408"),
        ({"multimodal_cfg": {"layers": 12}}, "CoCa"),
        ({"init_logit_bias": -10}, "bias.*SigLIP"),
    ],
)
def test_models_unlike_clip_are_refused_by_what_they_have(tmp_path: Path, model: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        Checkpoint.load(write(tmp_path, model))
    assert str(tmp_path) in str(caught.value)


def test_another_model_is_proposed_that_does_the_same(tmp_path: Path) -> None:
    for model, other in (
        ({"init_logit_bias": -10}, "siglip2?[.]"),
        ({"vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}}, "siglip2?[.]"),
        ({"text_cfg": {"hf_model_name": "xlm-roberta-base"}}, "languages.* siglip2[.]"),
        ({"vision_cfg": VISION | {"layers": [3, 4, 6, 3]}}, "datacomp[.]"),
    ):
        with pytest.raises(ModelError, match=f"{other}$"):
            Checkpoint.load(write(tmp_path, model))


def test_settings_that_change_nothing_are_passed_over(tmp_path: Path) -> None:
    vision = VISION | {"patch_dropout": 0.5, "output_tokens": True, "ls_init_value": None, "pool_type": "tok"}
    text = TEXT | {"hf_tokenizer_name": "", "tokenizer_kwargs": {}, "pad_id": 0, "eos_id": 2, "no_causal_mask": False}
    model = {"vision_cfg": vision | {"image_size": [4, 4], "final_ln_after_pool": True}, "text_cfg": text}
    found = Checkpoint.load(write(tmp_path, model | {"custom_text": False}))
    (tmp_path / "plain").mkdir()
    assert found.clip_config() == Checkpoint.load(write(tmp_path / "plain")).clip_config()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"model_cfg": null}',
        b'{"model_cfg": {"embed_dim": 3}}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": 1, "text_cfg": {}}}',
        b'{"model_cfg": {"embed_dim": null, "vision_cfg": {}, "text_cfg": {}}}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": {"width": "wide"}, "text_cfg": {}}}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": {"head_width": 0}, "text_cfg": {}}}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": {"patch_size": 0}, "text_cfg": {}}}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": {}, "text_cfg": {"heads": 7}}}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": [1]}',
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": {"mean": [1, 2]}}',
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONFIG).write_bytes(content)
    with pytest.raises(ModelError, match=CONFIG):
        Checkpoint.load(tmp_path)


def test_a_folder_without_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path / CONFIG)):
        Checkpoint.load(tmp_path)


def test_preprocessing_is_open_clips(tmp_path: Path) -> None:
    usual = Checkpoint.load(write(tmp_path)).preprocessing()
    assert usual["size"] == {"shortest_edge": 4}
    assert usual["crop_size"] == {"height": 4, "width": 4}
    assert usual["do_center_crop"]
    assert usual["resample"] == 3
    assert usual["image_mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert usual["image_std"] == [0.26862954, 0.26130258, 0.27577711]
    # `size` is that of the image tower, whatever preprocess_cfg says.
    given = {"size": 99, "resize_mode": "squash", "interpolation": "bilinear", "mean": 0.5, "std": [0.1, 0.2, 0.3]}
    other = Checkpoint.load(write(tmp_path, None, given)).preprocessing()
    assert other["size"] == {"height": 4, "width": 4}
    assert not other["do_center_crop"]
    assert other["resample"] == 2
    assert other["image_mean"] == [0.5, 0.5, 0.5]
    assert other["image_std"] == [0.1, 0.2, 0.3]
    nothing = {"mean": None, "std": None, "resize_mode": None, "interpolation": None}
    assert Checkpoint.load(write(tmp_path, None, nothing)).preprocessing() == usual
    assert Checkpoint.load(write(tmp_path, None, {"interpolation": "random"})).preprocessing() == usual
    for unknown in ({"resize_mode": "longest"}, {"interpolation": "lanczos"}):
        with pytest.raises(ModelError, match=next(iter(unknown.values()))):
            Checkpoint.load(write(tmp_path, None, unknown))


def is_read(folder: Path) -> bool:
    try:
        Checkpoint.load(folder)
    except ModelError:
        return False
    return True


def test_every_clip_with_a_vit_among_open_clips_architectures_is_read(tmp_path: Path) -> None:
    """And no other one."""
    architectures = (open_clip_reference.available() / "open_clip" / "model_configs").glob("*.json")
    known = {path.stem: is_read(write(tmp_path, json.loads(path.read_text()))) for path in architectures}
    read = {name for name, is_one in known.items() if is_one}
    wanted = {name for name in known if re.fullmatch(r"ViT-[a-zA-Z]+-\d+(-alt|-plus)?(-\d+)?(-quickgelu)?", name)}
    assert len(wanted) > 30
    assert wanted - read == {"ViT-M-16-alt"}  # it has layer scale
    assert read - wanted == set()
