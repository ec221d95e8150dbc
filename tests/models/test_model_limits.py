"""Configurations that make no sense are refused in one line, before anything is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTUREBOOK, Run, make_clip, paint
from families import FAMILIES, make
from fresh import COMMAND
from safetensors.numpy import load_file, save_file

from clipsearch.errors import ModelError
from clipsearch.models.disk.catalog import ENTRIES
from clipsearch.models.disk.files import locate
from clipsearch.models.disk.open_clip import CONFIG, WEIGHTS, Checkpoint

HUGE = 10**9
Change = Callable[[dict[str, Any]], object]


def changed(folder: Path, file: str, change: Change | Mapping[str, Any]) -> None:
    path = folder / file
    config = json.loads(path.read_text())
    if callable(change):
        change(config)
    else:
        config |= change
    path.write_text(json.dumps(config))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        locate(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tower(which: str, **fields: Any) -> Change:  # noqa: ANN401  (JSON)
    return lambda config: config[f"{which}_config"].update(fields)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        *(
            ("config.json", tower(which, **{field: value}), f"{which}_config.{field} is {json.dumps(value)}")
            for which in ("text", "vision")
            for field, values in {
                "num_attention_heads": (0, -4, "4", True, 4.0, HUGE),
                "hidden_size": (0, HUGE, float("nan"), [64], {"a": 1}, None),
                "num_hidden_layers": (0, -1, 10**7, float("inf")),
                "intermediate_size": (0, HUGE),
                "layer_norm_eps": (-1, "small", float("nan")),
                "hidden_act": (5, ["gelu"]),
                "model_type": (7,),
                "attention_dropout": (7, -1),
            }.items()
            for value in values
        ),
        ("config.json", tower("text", num_attention_heads=7), "text_config: 7 heads .* 64"),
        ("config.json", tower("text", vocab_size=0), "text_config.vocab_size is 0"),
        ("config.json", tower("text", vocab_size=HUGE), "vocab_size .* 4,000,000"),
        ("config.json", tower("text", max_position_embeddings=0), "text_config.max_position_embeddings is 0"),
        ("config.json", tower("text", num_labels=HUGE), "text_config.num_labels"),
        ("config.json", tower("vision", patch_size=0), "vision_config.patch_size is 0"),
        ("config.json", tower("vision", patch_size=65), "vision_config: .* 65 .* 64"),
        ("config.json", tower("vision", image_size=0), "vision_config.image_size is 0"),
        ("config.json", tower("vision", image_size=10**6), "vision_config.image_size"),
        ("config.json", tower("vision", num_channels=4), "vision_config.num_channels is 4"),
        ("config.json", {"projection_dim": -1}, "projection_dim is -1"),
        ("config.json", {"projection_dim": HUGE}, "projection_dim"),
        ("config.json", {"text_config": "nothing"}, 'text_config is "nothing".* object'),
        ("config.json", {"vision_config": []}, "vision_config is []"),
        ("config.json", {"text_config_dict": {"num_hidden_layers": 10**7}}, "text_config_dict.num_hidden_layers"),
        ("config.json", {"logit_scale_init_value": float("nan")}, "logit_scale_init_value is NaN"),
        ("config.json", {"quantization_config": {"bits": 4}}, "quantised"),
        # What the weights hold is something else.
        ("config.json", tower("text", num_hidden_layers=3), "num_hidden_layers is 3, .* 2:"),
        ("config.json", tower("vision", num_hidden_layers=1), "num_hidden_layers is 1, .* 2:"),
        ("config.json", tower("vision", hidden_size=128), "hidden_size is 128, .*vision_model"),
        ("config.json", tower("text", hidden_size=32), "hidden_size is 32, .*text_model"),
        ("config.json", tower("text", intermediate_size=161), "intermediate_size is 161, .*text_model"),
        ("config.json", tower("text", vocab_size=49408), "vocab_size is 49408, .*text_model"),
        ("config.json", tower("text", max_position_embeddings=77), "max_position_embeddings is 77, .*text_model"),
        ("config.json", tower("vision", image_size=224), "image_size is 224, .* 17 "),
        ("config.json", {"projection_dim": 512}, "projection_dim is 512, .*_projection"),
        # Preprocessing.
        *(
            ("preprocessor_config.json", {field: value}, f"{field} is {json.dumps(value)}")
            for field, values in {
                "image_std": ([0, 0, 0], [1, 1], 0.5, "1", [1e-40] * 3, [float("nan")] * 3, [True] * 3),
                "image_mean": ([None] * 3, [1e30] * 3),
                "size": ({"shortest_edge": 0}, {"shortest_edge": HUGE}, {"shortest_edge": "64"}, 0, {}, "64"),
                "crop_size": ({"height": 0, "width": 0}, -1, {"height": HUGE, "width": 1}),
                "resample": (-1, 17, "bicubic", True),
                "rescale_factor": (0, float("inf"), "1/255"),
                "do_resize": ("no",),
            }.items()
            for value in values
        ),
        ("preprocessor_config.json", {"crop_size": 32}, "image_size is 64, .* 32 x 32"),
        ("preprocessor_config.json", {"crop_size": 65}, "image_size is 64, .* 65 x 65"),
        ("preprocessor_config.json", {"patch_size": 14}, "patch_size is 16, .* 14:"),
        ("preprocessor_config.json", {"max_num_patches": 50_000}, "max_num_patches is 50000"),
        ("preprocessor_config.json", {"image_processor": 5}, "image_processor is 5"),
        ("tokenizer_config.json", {"model_max_length": -5}, "model_max_length is -5"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "model_max_length"),
    ],
)
def test_what_makes_no_sense_is_named(
    small_clip: Path, tmp_path: Path, file: str, change: Change | Mapping[str, Any], said: str
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    changed(folder, file, change)
    message = refused(folder)
    assert said in message or re.search(said, message)
    assert f"{folder / file}: " in message or f"{folder / 'config.json'}: " in message


def test_nested_and_large_junk_is_named(small_clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"text_config": deep}
    changed(folder, "config.json", {"more": deep})
    assert "nest too deep" in refused(folder)
    shutil.copy(small_clip / "config.json", folder)
    changed(folder, "config.json", {"junk": "x" * (1 << 24)})
    assert "config.json has 16," in refused(folder)


def test_a_hostile_folder_is_refused_before_torch_is_imported(
    small_clip: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    paint(tmp_path / "p" / "a.png", "red")
    changed(folder, "config.json", tower("vision", num_hidden_layers=10**7))
    code = COMMAND.format(arguments=["clipsearch", "index", "p", "--model", "./clip"]).replace("code == 0", "code == 2")
    script = f"{code}\nimport sys\nprint(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | environment, capture_output=True, check=False
    )
    assert done.stdout.splitlines()[-1] == b"[]", done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert "num_hidden_layers is 10000000" in line


@pytest.mark.parametrize("command", [["index", "p"], ["embed", "p/a.png", "-o", "x.npy"], ["models", "check"]])
def test_commands_end_with_one_line(run: Run, small_clip: Path, tmp_path: Path, command: list[str]) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    paint(tmp_path / "p" / "a.png", "red")
    changed(folder, "preprocessor_config.json", {"image_std": [0, 0, 0]})
    model = ["./clip"] if command[0] == "models" else ["--model", "./clip"]
    done = run(*command, *model, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "image_std is [0, 0, 0]; it has to be a number from 0.001 to 10000" in line


def test_weights_without_a_header_are_weighed(tmp_path: Path) -> None:
    import torch

    folder = make_clip(tmp_path / "clip")
    weights = {name: torch.from_numpy(array) for name, array in load_file(folder / "model.safetensors").items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    locate(str(folder))
    changed(folder, "config.json", tower("text", num_hidden_layers=500, hidden_size=16384, intermediate_size=65536))
    assert "parameters, and the weights have" in refused(folder)


def test_what_transformers_makes_nothing_of_is_no_traceback(run: Run, small_clip: Path, tmp_path: Path) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    changes: tuple[Change | Mapping[str, Any], ...] = (
        tower("text", hidden_act="no such thing"),
        tower("vision", initializer_range={"from": 0}),
        {"text_config": None, "vision_config": None},
    )
    for number, change in enumerate(changes):
        folder = Path(shutil.copytree(small_clip, tmp_path / f"clip-{number}"))
        changed(folder, "config.json", change)
        done = run("index", "p", "--model", folder, cwd=tmp_path)
        assert done.returncode == 2, (number, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (number, done.stderr)


# -- open_clip ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of open_clip with random weights."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32},
        "text_cfg": {"layers": 2, "width": 64, "heads": 2},
    }
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"std": [0.2, 0.2, 0.2]}}))
    shapes = {name: one.shape for name, one in Checkpoint.load(folder)._expected().items()} | {"logit_scale": ()}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / WEIGHTS)
    assert locate(str(folder)).layout == "open_clip"
    return folder


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("text_cfg", "heads", 0, "model_cfg.text_cfg.heads is 0"),
        ("text_cfg", "heads", 3, "3 heads .* 64"),
        ("text_cfg", "layers", 10**7, "model_cfg.text_cfg.layers is 10000000"),
        ("text_cfg", "layers", 3, "12 .*resblocks.2"),
        ("text_cfg", "width", HUGE, "model_cfg.text_cfg.width"),
        ("text_cfg", "context_length", 0, "model_cfg.text_cfg.context_length is 0"),
        ("text_cfg", "context_length", 60, "positional_embedding .*60 x 64"),
        ("text_cfg", "mlp_ratio", -4.0, "model_cfg.text_cfg.mlp_ratio"),
        ("vision_cfg", "patch_size", 0, "model_cfg.vision_cfg.patch_size is 0"),
        ("vision_cfg", "image_size", HUGE, "model_cfg.vision_cfg.image_size"),
        ("vision_cfg", "image_size", 32, "visual.positional_embedding .*17 x 64"),
        ("vision_cfg", "head_width", 0, "model_cfg.vision_cfg.head_width is 0"),
        ("vision_cfg", "width", 128, "visual.* 64 .* 128"),
    ],
)
def test_open_clip_s_configurations_are_held_to_the_same(
    checkpoint: Path, part: str, field: str, value: object, said: str
) -> None:
    changed(checkpoint, CONFIG, lambda config: config["model_cfg"][part].update({field: value}))
    assert re.search(said, refused(checkpoint))


def test_open_clip_s_other_numbers(checkpoint: Path) -> None:
    for change, said in (
        ({"preprocess_cfg": {"std": [0, 0, 0]}}, "preprocess_cfg.std is [0, 0, 0]"),
        ({"preprocess_cfg": {"mean": float("nan")}}, "preprocess_cfg.mean is NaN"),
        ({"model_cfg": 5}, "model_cfg is 5;"),
    ):
        folder = Path(shutil.copytree(checkpoint, checkpoint.with_name("copy")))
        changed(folder, CONFIG, change)
        assert said in refused(folder)
        shutil.rmtree(folder)


# -- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_passes(family: str, tmp_path: Path) -> None:
    locate(str(make(family, tmp_path)))


def test_the_bundled_model_passes_and_so_do_the_shapes_of_the_catalogue(tmp_path: Path) -> None:
    from clipsearch.models.disk.limits import wrong_with

    assert locate("picturebook").folder == PICTUREBOOK
    # As openai/clip-vit-large-patch14-336 and laion's have it: both towers twice, one of them null.
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    config = {
        "model_type": "clip",
        "vision_config": vision | {"image_size": 336, "patch_size": 14, "projection_dim": 768},
        "text_config": text | {"vocab_size": 49408, "max_position_embeddings": 77, "id2label": {"0": "LABEL_0"}},
        "text_config_dict": text | {"vocab_size": 49408},
        "vision_config_dict": None,
        "projection_dim": 768,
        "logit_scale_init_value": 2.6592,
    }
    pictures = {
        "crop_size": {"height": 336, "width": 336},
        "size": {"shortest_edge": 336},
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
    }
    tokens = {"model_max_length": 1000000000000000019884624838656, "padding_side": "right"}
    named = {"config.json": config, "preprocessor_config.json": pictures, "tokenizer_config.json": tokens}
    for name, content in named.items():
        (tmp_path / name).write_text(json.dumps(content))
    with (tmp_path / "pytorch_model.bin").open("wb") as file:
        file.truncate(1_711_000_000)
    assert wrong_with(tmp_path, list(named), [tmp_path / "pytorch_model.bin"]) is None
    # SigLIP so400m's patches do not fill its pictures.
    changed(
        tmp_path,
        "config.json",
        {"model_type": "siglip", "vision_config": vision | {"image_size": 384, "patch_size": 14}},
    )
    changed(tmp_path, "preprocessor_config.json", {"size": {"height": 384, "width": 384}, "crop_size": None})
    changed(tmp_path, "preprocessor_config.json", {"do_center_crop": False})
    assert wrong_with(tmp_path, list(named), [tmp_path / "pytorch_model.bin"]) is None
    assert len(ENTRIES) > 5


def test_what_only_shows_at_work_is_no_traceback_either(run: Run, tmp_path: Path) -> None:
    paint(tmp_path / "p" / "a.png", "red")
    cases: tuple[tuple[str, str, Change | Mapping[str, Any], str], ...] = (
        ("siglip2-fixed", "config.json", tower("vision", vision_use_head=False), "no vectors"),
        ("altclip", "config.json", tower("text", pad_token_id=None), "pad_token_id"),
        ("altclip", "tokenizer_config.json", {"pad_token": "no such token"}, "tokenizer does not belong"),
        ("siglip", "tokenizer_config.json", {"eos_token": None}, "tokenizer cannot be read"),
    )
    for number, (family, file, change, said) in enumerate(cases):
        folder = make(family, tmp_path / f"model-{number}")
        changed(folder, file, change)
        done = run("score", "p/a.png", "--text", "a dog", "--model", folder, cwd=tmp_path, torch=True)
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, done.stdout) == (2, b""), (family, change)
        assert said in lines[-1], (family, lines)
        assert not any("Traceback" in line for line in lines)
