"""Text towers are made from a model's own files without torch, equal to those that torch makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from conftest import PICTUREBOOK, make_clip
from fresh import COMMAND, loaded_by
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from clipsearch.models.disk import hf_tokenizer
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.tower_cache import tower_folder
from clipsearch.models.in_torch.encoder import Encoder

FROM_FILES = "f" * 32
"""The fingerprint under which towers that are made without torch are saved here."""
BYTES = ("text_tower.safetensors", "tokens.safetensors")
TEXTS = [
    "a dog is sleeping",
    "Two RED cars, isn't it? 12,5",
    "naïve café — “quoted” \u017f \u0131 İ",
    "new\nline\ttab  two ",
    "<|endoftext|> x <|STARTOFTEXT|><|startoftext|>",
    "<eos> a <pad> b <EOS>",
    "개가 자고 있다 犬 🐶",
    "",
]
Settings = dict[str, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))


def check_equal(model: Path) -> None:
    files = ModelFiles("test", model, None)
    encoder = Encoder(files, "cpu", "fp32")
    assert encoder.save_text_tower()
    assert tower_cache.make(FROM_FILES, files)
    for name in BYTES:
        ours, theirs = tower_folder(FROM_FILES) / name, tower_folder(encoder.fingerprint) / name
        assert ours.read_bytes() == theirs.read_bytes(), name
    ours_loaded, theirs_loaded = tower_cache.load(FROM_FILES), tower_cache.load(encoder.fingerprint)
    assert ours_loaded is not None
    assert theirs_loaded is not None
    scales = ours_loaded.shape.logit_scale, theirs_loaded.shape.logit_scale
    assert scales[0] == pytest.approx(scales[1], rel=1e-6)  # torch rounds the exponential in its own way
    assert ours_loaded.shape == type(ours_loaded.shape)(**{**vars(theirs_loaded.shape), "logit_scale": scales[0]})
    for text in TEXTS:
        assert ours_loaded.tokenize(text) == theirs_loaded.tokenize(text)


@pytest.mark.parametrize("family", ["clip", "clipseg", "siglip2-fixed", "siglip2"])
def test_it_equals_the_one_that_torch_makes(family: str, tmp_path: Path) -> None:
    check_equal(make_clip(tmp_path / "model") if family == "clip" else families.make(family, tmp_path / "model"))


def test_that_of_the_bundled_model_equals_the_one_that_torch_makes() -> None:
    check_equal(PICTUREBOOK)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_that_of_weights_in_other_numbers_does_too(dtype: torch.dtype, tmp_path: Path) -> None:
    model = make_clip(tmp_path / "model")
    AutoModel.from_pretrained(model).to(dtype).save_pretrained(model)
    check_equal(model)


def test_a_configuration_with_defaults_and_an_old_end_token_does_too(tmp_path: Path) -> None:
    model = make_clip(tmp_path / "model", eos=2)
    config = json.loads((model / "config.json").read_text("utf-8"))
    for name in ("hidden_act", "layer_norm_eps"):
        del config["text_config"][name]
    (model / "config.json").write_text(json.dumps(config))
    check_equal(model)


@pytest.mark.parametrize("family", ["siglip", "metaclip_2", "groupvit", "altclip"])
def test_what_takes_transformers_is_left_to_it(family: str, tmp_path: Path) -> None:
    model = families.make(family, tmp_path / "model")
    assert not tower_cache.make(FROM_FILES, ModelFiles("test", model, None))
    assert not tower_folder(FROM_FILES).exists()


def _without(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def _one_tensor_less(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["text_model.encoder.layers.1.mlp.fc1.bias"]
    save_file(tensors, model / "model.safetensors")


def _one_position_less(model: Path) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["text_config"]["max_position_embeddings"] -= 1
    (model / "config.json").write_text(json.dumps(config))


def _another_end(model: Path) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["text_config"]["eos_token_id"] = 5
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        *(_without(name) for name in ("tokenizer.json", "tokenizer_config.json")),
        *(_one_tensor_less, _one_position_less, _another_end),
    ],
)
def test_a_model_whose_files_do_not_fit_leaves_none(change: Callable[[Path], None], tmp_path: Path) -> None:
    model = make_clip(tmp_path / "model")
    change(model)
    assert not tower_cache.make(FROM_FILES, ModelFiles("test", model, None))
    assert not tower_folder(FROM_FILES).exists()


def test_the_first_query_imports_no_torch(sample_index: Path, environment: dict[str, str], tmp_path: Path) -> None:
    environment = environment | {"CLIPSEARCH_CACHE": str(tmp_path / "empty")}
    code = COMMAND.format(arguments=["clipsearch", "query", "a dog is sleeping"])
    loaded = loaded_by(code, environment, sample_index)
    assert list((tmp_path / "empty").glob("text-towers-*/*/text_tower.safetensors"))
    assert not loaded & {"torch", "transformers", "pydantic", "scipy"}


# -- tokenizers --------------------------------------------------------------------------------------------------


def folder_of_tokenizer(source: Path, folder: Path, family: str, tokenizer: Settings, settings: Settings) -> Path:
    """`source`'s tokenizer with other entries in tokenizer.json and tokenizer_config.json; None removes one."""
    folder.mkdir()
    for name, changes in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        entries = json.loads((source / name).read_text("utf-8")) | changes
        kept = {key: value for key, value in entries.items() if value is not None or name == "tokenizer.json"}
        (folder / name).write_text(json.dumps(kept))
    (folder / "config.json").write_text(json.dumps({"model_type": family, "text_config": {}, "vision_config": {}}))
    return folder


def check_tokenizer(folder: Path, family: str) -> None:
    found = hf_tokenizer.find(folder, family)
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    assert found is not None
    assert found.pad == theirs.pad_token_id
    assert found.left == (theirs.padding_side == "left")
    assert found.masked == ("attention_mask" in theirs.model_input_names)
    ours, wanted = (json.loads(one.to_str()) for one in (found.tokenizer, theirs.backend_tokenizer))
    for part in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model"):
        if part != "post_processor" or family == "clip":  # a template can be written in several ways
            assert ours[part] == wanted[part], part
    for text in TEXTS:
        assert found.tokenizer.encode(text).ids == theirs(text).input_ids, text


START, END = "<|startoftext|>", "<|endoftext|>"
OF_MATCHING = {"single_word": False, "lstrip": False, "rstrip": False, "special": True}
NORMALIZED = [
    {"id": 0, "content": START, **OF_MATCHING, "normalized": True},
    {"id": 1, "content": END, **OF_MATCHING, "normalized": False},
]
AS_DICTIONARY = {
    "__type": "AddedToken",
    "content": END,
    "lstrip": False,
    "normalized": True,
    "rstrip": False,
    "single_word": False,
}


@pytest.mark.parametrize(
    ("tokenizer", "settings"),
    [
        ({}, {}),
        ({"normalizer": None, "pre_tokenizer": None, "post_processor": None}, {}),
        ({"added_tokens": NORMALIZED}, {"tokenizer_class": "CLIPTokenizerFast"}),
        ({"added_tokens": NORMALIZED}, {"eos_token": AS_DICTIONARY, "do_lower_case": True, "errors": "replace"}),
        ({}, {"add_bos_token": False, "add_eos_token": False}),
        ({}, {"bos_token": None, "eos_token": None, "pad_token": None, "unk_token": None}),
        (
            {"added_tokens": NORMALIZED},
            {"added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in NORMALIZED}},
        ),
    ],
)
def test_a_tokenizer_of_clip_is_that_of_transformers(tokenizer: Settings, settings: Settings, tmp_path: Path) -> None:
    check_tokenizer(folder_of_tokenizer(PICTUREBOOK, tmp_path / "tokenizer", "clip", tokenizer, settings), "clip")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma") / "tokenizer"
    families.gemma_like(folder)
    return folder


PADDING: Settings = {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None}
PADDING |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}


@pytest.mark.parametrize("kind", ["Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast"])
@pytest.mark.parametrize(
    "changes",
    [
        ({}, {}),
        ({"normalizer": None}, {"padding_side": None, "model_input_names": None}),
        ({"padding": PADDING}, {"padding_side": None}),
        ({}, {"add_bos_token": False, "add_eos_token": True}),
        ({"post_processor": None}, {"add_bos_token": True}),
        ({"post_processor": None}, {}),
    ],
)
@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_a_tokenizer_of_siglip_2_is_that_of_transformers(
    family: str, kind: str, changes: tuple[Settings, Settings], gemma: Path, tmp_path: Path
) -> None:
    settings = changes[1] | {"tokenizer_class": kind}
    check_tokenizer(folder_of_tokenizer(gemma, tmp_path / "tokenizer", family, changes[0], settings), family)


@pytest.mark.parametrize(
    "settings",
    [
        {"split_special_tokens": True},
        {"additional_special_tokens": ["<x>"]},
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"tokenizer_class": None},
        {"pad_token": "!"},
        {"eos_token": {"content": END}},
        {"added_tokens_decoder": {"0": {"content": START, **OF_MATCHING, "normalized": True}}},
    ],
)
def test_a_tokenizer_with_other_settings_is_left_to_transformers(settings: Settings, tmp_path: Path) -> None:
    folder = folder_of_tokenizer(PICTUREBOOK, tmp_path / "tokenizer", "clip", {}, settings)
    assert hf_tokenizer.find(folder, "clip") is None


def test_special_tokens_in_other_files_are_left_to_transformers_if_they_differ(tmp_path: Path) -> None:
    folder = folder_of_tokenizer(PICTUREBOOK, tmp_path / "tokenizer", "clip", {}, {})
    note = folder / "special_tokens_map.json"
    note.write_text(json.dumps({"bos_token": START, "eos_token": AS_DICTIONARY}))
    check_tokenizer(folder, "clip")
    note.write_text(json.dumps({"pad_token": "!"}))
    assert hf_tokenizer.find(folder, "clip") is None
    note.unlink()
    (folder / "added_tokens.json").write_text("{}")
    assert hf_tokenizer.find(folder, "clip") is None
    shutil.rmtree(folder)
    assert hf_tokenizer.find(folder, "clip") is None
