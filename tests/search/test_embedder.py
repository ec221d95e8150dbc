"""A model without an index, and with one that knows some pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import PICTUREBOOK, SAMPLES, Run, index, make_clip, paint

from clipsearch.api import load_model
from clipsearch.errors import IndexMissingError, UnreadableImageError
from clipsearch.images.files import ImageFile
from clipsearch.images.finding import find_images
from clipsearch.index.reading import Store
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.search.embedder import Embedder


def vectors(embedder: Embedder, files: list[ImageFile]) -> npt.NDArray[np.float32]:
    """(N, D) of pictures that can all be read."""
    found = list(embedder.images(files))
    assert [image.file for image in found] == files
    return np.stack([image.vector for image in found if not isinstance(image.vector, UnreadableImageError)])


def test_images_get_the_vectors_that_an_index_has(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = list(find_images(os.fsencode(SAMPLES / "dogs")))
    monkeypatch.chdir(sample_index)
    with load_model() as known, load_model("picturebook", sample_index) as too:
        from_index = vectors(known, files)
        assert known.name == too.name == "picturebook"
        assert "_encoder" not in vars(known)  # contents were known, so no model was loaded
    with Embedder(ModelFiles("picturebook", PICTUREBOOK, None)) as embedder:
        found = vectors(embedder, files)
    np.testing.assert_allclose(found, from_index, atol=1e-3)
    with Embedder(ModelFiles("picturebook", PICTUREBOOK, None)) as embedder:
        alone = embedder.image((SAMPLES / "dogs" / "dog_0.webp").read_bytes(), b"dog_0.webp")
    np.testing.assert_allclose(alone, found[0], atol=1e-6)


def test_known_new_and_broken_images_come_in_order(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        paint(tmp_path / "p" / f"{number:02}.png", f"#{number * 6:02x}{255 - number * 6:02x}80")
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    for number in range(1, 40, 3):
        paint(tmp_path / "p" / f"{number:02}.png", f"#ff{number:02x}ff")
    for number in range(2, 40, 9):
        (tmp_path / "p" / f"{number:02}.png").write_text("no picture")
    (tmp_path / "p" / "05.png").unlink()
    files = [ImageFile(os.fsencode(tmp_path / "p" / f"{number:02}.png"), 1, 1) for number in range(40)]
    monkeypatch.chdir(tmp_path)
    with load_model() as embedder:
        found = list(embedder.images(files))
    assert [image.file for image in found] == files
    with Embedder(ModelFiles("picturebook", PICTUREBOOK, None)) as plain:
        for file, result, *_ in found:
            name = os.path.basename(file.path)
            number = int(name[:2])
            if number == 5 or number % 9 == 2:
                assert isinstance(result, UnreadableImageError), name
            else:
                assert isinstance(result, np.ndarray), name
                wanted = plain.image(Path(os.fsdecode(file.path)).read_bytes(), name)
                np.testing.assert_allclose(result, wanted, atol=1e-3, err_msg=os.fsdecode(name))


def test_which_model_is_taken(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_clip(tmp_path / "other")
    shutil.copytree(PICTUREBOOK, tmp_path / "copy")
    paint(tmp_path / "p" / "a.png", "red")
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    monkeypatch.chdir(tmp_path / "p")
    with load_model() as found:
        assert (found.name, found.uses_index) == ("picturebook", True)
    with load_model(str(tmp_path / "copy")) as found:  # the very same model
        assert found.uses_index
    with load_model(str(other)) as found:
        assert (found.name, found.uses_index) == (str(other), False)
    monkeypatch.setenv("CLIPSEARCH_MODEL", str(other))
    with load_model() as found:
        assert (found.name, found.uses_index) == (str(other), False)
    with pytest.raises(IndexMissingError):
        load_model("picturebook", tmp_path / "nowhere")


def test_texts_and_tokens_are_those_of_the_model(sample_index: Path) -> None:
    with Embedder(Store.open(sample_index / ".clipsearch")) as embedder:
        encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu")
        texts = ["a dog", "a red car in the snow"]
        np.testing.assert_allclose(embedder.embed_texts(texts), encoder.encode_texts(texts), atol=4e-6)
        assert embedder.tokenize(texts[1]) == encoder.tokenize(texts[1])
        assert embedder.logits == pytest.approx(encoder.logits)
