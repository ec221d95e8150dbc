"""The image tower in the user's cache: made without torch, and made anew when it is not what was written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import families
import numpy as np
import numpy.typing as npt
import pytest
from conftest import PICTUREBOOK, make_clip
from PIL import Image

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import ModelFiles, fingerprint
from clipsearch.models.in_numpy import image_cache
from clipsearch.models.in_numpy.image_tower import ImageTower
from clipsearch.models.in_numpy.sealed import seal
from clipsearch.models.in_torch.loading import known_fingerprint
from clipsearch.models.preprocessing import Preprocessing

WEIGHTS, SHAPE = "image_tower.safetensors", "image_tower.json"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(model: Path) -> ImageTower:
    files = ModelFiles("test", model, None)
    assert image_cache.save(fingerprint(model), files)
    tower = image_cache.load(fingerprint(model))
    assert tower is not None
    return tower


def vector(tower: ImageTower) -> npt.NDArray[np.float32]:
    return np.asarray(tower.encode_images([tower.preprocessing(PICTURE)])[0])


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_what_is_loaded_is_what_the_model_says(family: str, tmp_path: Path) -> None:
    model = make_clip(tmp_path / "model") if family == "clip" else families.make(family, tmp_path / "model")
    files = ModelFiles("test", model, None)
    tower = saved(model)
    assert tower.preprocessing == Preprocessing.load(files)
    exact = image_cache.load(fingerprint(model), exact=True)
    assert exact is not None
    assert exact.preprocessing.exact
    before = vector(tower)
    shutil.rmtree(model)  # the model's own files are not needed
    np.testing.assert_array_equal(vector(tower), before)


def test_making_and_loading_one_imports_no_model_library(cache: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from clipsearch.models.disk.files import locate\n"
        "from clipsearch.models.in_numpy import image_cache\n"
        "assert image_cache.save('7' * 32, locate('picturebook')) and image_cache.load('7' * 32)\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'pydantic', 'scipy'})\n"
    )
    environment = os.environ | {"CLIPSEARCH_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.strip() == b""


def _replaced(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.parametrize("damage", [_replaced, _truncated, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", [WEIGHTS, SHAPE, "checksums.json"])
def test_a_damaged_one_is_never_used_and_made_anew_with_one_line(
    file: str, damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_clip(tmp_path / "model")
    before = vector(saved(model))
    folder = image_cache.image_tower_folder(fingerprint(model))
    damage(folder / file)
    assert image_cache.load(fingerprint(model)) is None
    assert image_cache.damage(fingerprint(model))
    np.testing.assert_array_equal(vector(saved(model)), before)
    assert [record.message.count("in the cache is damaged") for record in caplog.records] == [1]
    assert image_cache.damage(fingerprint(model)) is None
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]  # nothing is left behind


def test_one_of_another_version_is_not_used_and_made_anew(tmp_path: Path) -> None:
    model = make_clip(tmp_path / "model")
    before = vector(saved(model))
    folder = image_cache.image_tower_folder(fingerprint(model))
    described = json.loads((folder / SHAPE).read_text("utf-8"))
    described["tower"]["unknown"] = 1
    (folder / SHAPE).write_text(json.dumps(described))
    seal(folder)
    assert image_cache.load(fingerprint(model)) is None
    np.testing.assert_array_equal(vector(saved(model)), before)


def test_a_model_that_numpy_cannot_compute_leaves_none(tmp_path: Path, cache: Path) -> None:
    model = families.make("groupvit", tmp_path / "model")
    assert not image_cache.save(fingerprint(model), ModelFiles("test", model, None))
    assert not cache.exists()


def test_images_of_another_size_than_its_positions_leave_none(tmp_path: Path) -> None:
    model = families.make("clipseg", tmp_path / "model")
    pictures = json.loads((model / "preprocessor_config.json").read_text("utf-8"))
    pictures["size"] = {"height": 96, "width": 96}  # CLIPSeg would stretch its positions
    (model / "preprocessor_config.json").write_text(json.dumps(pictures))
    assert not image_cache.save(fingerprint(model), ModelFiles("test", model, None))


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ModelError, match="CLIPSEARCH_CACHE"):
        image_cache.save("7" * 32, ModelFiles("test", PICTUREBOOK, None))


# -- fingerprints that are remembered ------------------------------------------------------------------------------


def test_a_fingerprint_is_computed_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipsearch.models.disk import files

    computed: list[Path] = []
    real = files.fingerprint

    def fingerprint(folder: Path) -> str:
        computed.append(folder)
        return real(folder)

    monkeypatch.setattr(files, "fingerprint", fingerprint)
    model = make_clip(tmp_path / "model")
    assert known_fingerprint(model) == known_fingerprint(model) == real(model)
    assert len(computed) == 1
    weights = model / "model.safetensors"
    times = weights.stat().st_atime_ns, weights.stat().st_mtime_ns
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=times)  # size and time are what they were
    assert known_fingerprint(model) == real(model)
    assert len(computed) == 2


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"a": 1}'])
def test_a_damaged_note_of_fingerprints_is_no_answer(content: bytes, tmp_path: Path, cache: Path) -> None:
    model = make_clip(tmp_path / "model")
    cache.mkdir()
    (cache / "fingerprints.json").write_bytes(content)
    assert known_fingerprint(model) == fingerprint(model) == known_fingerprint(model)
