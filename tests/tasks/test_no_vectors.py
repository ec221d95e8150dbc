"""What a model makes that is no vector is never recorded, and what older indexes hold of that kind is never found."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Run, index, make_clip, paint
from safetensors.numpy import load_file, save_file
from tiny import MODEL, FixedEncoders, Pixels, TinyEncoder, update

from clipsearch.errors import IndexDamagedError, ModelError, UnreadableImageError
from clipsearch.images.codecs.decoding import decode
from clipsearch.index.format import HEADER_BYTES
from clipsearch.index.pipeline import vectors_of
from clipsearch.index.reading import Store
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.search.index import Index
from clipsearch.unit import are_unit

Array = npt.NDArray[np.float32]


def spoilt(folder: Path, **factors: float) -> Path:
    """A small CLIP with some tensors multiplied; dots in their names are written as two underscores."""
    make_clip(folder)
    weights = load_file(folder / "model.safetensors")
    for name, factor in factors.items():
        weights[name.replace("__", ".")] *= np.float32(factor)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Failing(TinyEncoder):
    """Makes no vector of pictures with some colour in the corner."""

    def __init__(self, fails: Callable[[npt.NDArray[np.uint8]], bool], value: float = np.nan) -> None:
        super().__init__()
        self._fails, self._value = fails, value

    def encode_images(self, pixels: Pixels) -> Array:
        vectors = super().encode_images(pixels)
        vectors[[self._fails(one) for one in pixels]] *= self._value
        return vectors


def is_blue(pixels: npt.NDArray[np.uint8]) -> bool:
    return tuple(pixels[0, 0]) == (0, 0, 255)


def always(pixels: npt.NDArray[np.uint8]) -> bool:
    return pixels.size > 0


# -- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e-30])
def test_an_image_that_fails_alone_is_unreadable_and_costs_no_other_its_place(
    pictures: Path, tmp_path: Path, value: float
) -> None:
    shutil.copy(pictures / "cold" / "blue.png", pictures / "warm" / "blue again.png")
    with np.errstate(all="ignore"):
        summary = update(tmp_path / "i", pictures, encoder=Failing(is_blue, value))
    assert (summary.images, summary.embedded) == (9, 9)
    assert [os.path.basename(path) for path, _ in summary.unreadable] == [b"blue.png", b"blue again.png"]
    assert {reason for _, reason in summary.unreadable} == {
        "the model makes no vector of it: what comes out is no vector (NaN, infinite or all zeros)"
    }
    with Index(Store.open(tmp_path / "i"), FixedEncoders(np.eye(1, MODEL.dim, dtype=np.float32))) as found:
        matrix, _ = found.store.matrix()
        assert are_unit(matrix).all()
        assert len(found.search("anything", None)) == 9


def test_one_image_is_judged_by_what_the_model_makes_of_others() -> None:
    blue = np.full((4, 4, 3), (0, 0, 255), np.uint8)
    (result,) = vectors_of(Failing(is_blue), "tiny", [blue])
    assert isinstance(result, UnreadableImageError)
    with pytest.raises(ModelError, match="'tiny'"):
        vectors_of(Failing(always), "tiny", [blue])
    results = vectors_of(Failing(is_blue), "tiny", [blue, 255 - blue, blue])
    assert [isinstance(one, UnreadableImageError) for one in results] == [True, False, True]
    with pytest.raises(ModelError, match="tiny"):  # too many for bad luck
        vectors_of(Failing(is_blue), "tiny", [blue] * 8)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_model_that_makes_no_vectors_is_an_error_in_every_command(
    run: Run, tmp_path: Path, pictures: Path, value: float
) -> None:
    spoilt(tmp_path / "model", visual_projection__weight=value)
    picture = pictures / "cold" / "red.png"
    np.save(tmp_path / "v.npy", np.eye(1, 32, dtype=np.float32))
    (tmp_path / "v.txt").write_text(f"{picture}\n")
    commands: list[list[str | Path]] = [["index", "pictures"], ["embed", picture, "-o", "out.npy"]]
    if value != value:  # noqa: PLR0124  (once is enough for these)
        commands += [
            ["score", picture, "--text", "a dog"],
            ["classify", picture, "--label", "a", "--label", "b"],
            ["import", "v.npy", "v.txt"],
        ]
    for command in commands:
        done = run(*command, "--model", "./model", cwd=tmp_path, torch=True)
        said = done.stderr.decode()
        assert done.returncode == 2, (command, said)
        assert repr(str(tmp_path / "model")) in said.splitlines()[-1], (command, said)
        assert "clipsearch models check" in said, command
        assert "Warning" not in said, command
        assert done.stdout == b""
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.usefixtures("pictures")
def test_what_overflows_in_fewer_bits_is_computed_again_in_fp32(run: Run, tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain")
    spoilt(tmp_path / "model", visual_projection__weight=1e6)  # vectors of unit length stay the same
    done = run("index", "pictures", "--model", "./model", "--precision", "fp16", "--json", cwd=tmp_path)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert said.count("again in fp32") == 1
    summary = json.loads(done.stdout)
    assert (summary["embedded"], summary["precision"]) == (10, "fp32")
    assert summary["precision_reason"] == "fp16 gave no vectors"
    encoder = Encoder(ModelFiles("plain", plain, None), "cpu", "fp32")
    with closing(Store.open(tmp_path / ".clipsearch")) as store:
        matrix, _ = store.matrix()
        for record in store.records():
            pixels = encoder.preprocessing(decode(Path(os.fsdecode(record.path)).read_bytes()).image)
            np.testing.assert_allclose(matrix[record.row or 0], encoder.encode_images([pixels])[0], atol=2e-3)


# -- texts -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu_new"])
def test_a_model_that_makes_no_vectors_of_texts_is_an_error(run: Run, tmp_path: Path, activation: str) -> None:
    """By the text tower in NumPy and, with an activation that it does not know, by transformers."""
    make_clip(tmp_path / "model", activation=activation)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["text_projection.weight"] *= np.float32(np.nan)
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    index(run, "pictures", "--model", "./model", cwd=tmp_path)
    for command in (["query", "a dog", "--json"], ["embed", "--text", "a dog", "-o", "t.npy", "--model", "./model"]):
        done = run(*command, cwd=tmp_path)
        said = done.stderr.decode()
        assert (done.returncode, done.stdout) == (2, b"")
        assert "'a dog'" in said.splitlines()[-1]
        assert "clipsearch models check" in said
        assert "Warning" not in said


@pytest.mark.usefixtures("pictures")
def test_a_scale_of_logits_that_is_no_number_is_an_error(run: Run, tmp_path: Path) -> None:
    spoilt(tmp_path / "model", logit_scale=np.nan)
    done = run("index", "pictures", "--model", "./model", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search("logit.* nan", done.stderr.decode().splitlines()[-1])


@pytest.mark.usefixtures("pictures")
def test_a_tokenizer_with_more_tokens_than_the_tower_knows_is_named(run: Run, tmp_path: Path) -> None:
    make_clip(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    word = next(token for token in vocabulary if token.startswith("dog"))
    vocabulary[word] = 50_000
    path.write_text(json.dumps(tokenizer))
    index(run, "pictures", "--model", "./model", cwd=tmp_path)
    done = run("query", "a dog", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search("tokenizer.* 50000", done.stderr.decode())


# -- old indexes -------------------------------------------------------------------------------------------------


def write_row(folder: Path, row: int, values: float | Array) -> None:
    """What an older clipsearch recorded of a model that failed."""
    with (folder / "embeddings.npy").open("r+b") as file:
        file.seek(HEADER_BYTES + row * MODEL.dim * 2)
        file.write(np.full(MODEL.dim, values).astype(np.float16).tobytes())


def rows_of(folder: Path) -> dict[bytes, int]:
    with closing(Store.open(folder)) as store:
        return {os.path.basename(record.path): record.row for record in store.records() if record.row is not None}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 100.0])
def test_rows_that_are_no_vectors_never_rank_and_it_is_said(
    pictures: Path, tmp_path: Path, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "i"
    update(folder, pictures)
    rows = rows_of(folder)
    for name in (b"red.png", b"pink.png"):
        write_row(folder, rows[name], value)
    query = np.full((1, MODEL.dim), MODEL.dim**-0.5, np.float32)
    with Index(Store.open(folder), FixedEncoders(query)) as opened, warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in (None, 9, 1):
            found = opened.search("anything", k)
            assert len(found) == min(k or 8, 8)
            assert {hit.path.name for hit in found}.isdisjoint({"red.png", "pink.png"})
            assert all(np.isfinite(hit.score) for hit in found)
        assert "2 images have no usable vector" in caplog.messages[0]


def test_a_query_over_rows_that_are_all_nan_does_not_say_that_there_are_no_images(run: Run, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        paint(tmp_path / "p" / f"{colour}.png", colour)
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    matrix = np.load(tmp_path / ".clipsearch" / "embeddings.npy", mmap_mode="r+")
    matrix[:] = np.nan
    matrix.flush()
    for command in (["query", "a dog"], ["query", "a dog", "--json"], ["similar", "p/red.png"]):
        done = run(*command, cwd=tmp_path)
        said = done.stderr.decode()
        assert (done.returncode, done.stdout) == (2, b""), said
        assert "clipsearch index --reread" in said
    for command in (["duplicates"], ["cluster", "-n", "2"], ["export", "-o", "x.npy"]):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 2, command
        assert "clipsearch index --reread" in done.stderr.decode(), command
    # What is said is what mends it.
    done = run("status", "--verify", cwd=tmp_path)
    assert done.returncode == 2
    assert "2 of 2 vectors are not of unit length (2 NaN or infinite, 0 all zeros)" in done.stdout.decode()
    assert "red.png" in done.stdout.decode()
    assert "clipsearch index --reread" in done.stdout.decode()
    typed = done.stdout.decode().partition("again: clipsearch ")[2].split("\n")[0]
    summary = index(run, *typed.split()[1:], cwd=tmp_path)
    assert summary["embedded"] == 2
    assert run("status", "--verify", cwd=tmp_path).returncode == 0
    assert run("query", "a dog", cwd=tmp_path).stderr == b""


def test_a_row_that_is_no_vector_is_not_handed_on_to_a_copy(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    update(folder, pictures)
    write_row(folder, rows_of(folder)[b"red.png"], np.nan)
    shutil.copy(pictures / "cold" / "red.png", pictures / "copy.png")
    (pictures / "cold" / "red.png").rename(pictures / "moved.png")
    summary = update(folder, pictures)
    assert (summary.images, summary.embedded, summary.removed) == (11, 1, 1)
    rows = rows_of(folder)
    store = Store.open(folder)
    matrix, _ = store.matrix()
    assert are_unit(matrix[[rows[b"copy.png"], rows[b"moved.png"]]]).all()
    store.close()


def test_commands_that_need_all_vectors_refuse_some_that_are_none(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    update(folder, pictures)
    store = Store.open(folder)
    store.sound_matrix()
    write_row(folder, 3, 0.0)
    with pytest.raises(IndexDamagedError, match="1 image"):
        store.sound_matrix()
    store.close()


def test_what_is_a_unit_vector() -> None:
    rows = np.array([[1, 0], [0.6, 0.8], [0, 0], [np.nan, 1], [np.inf, 0], [2, 0], [0.995, 0]], np.float16)
    assert are_unit(rows).tolist() == [True, True, False, False, False, False, True]
    assert are_unit(np.full((1, 4), 1e30, np.float32)).tolist() == [False]
