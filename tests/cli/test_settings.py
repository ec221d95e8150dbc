"""`clipsearch.toml`, the environment and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsearch.errors import InputError
from clipsearch.settings import read_settings, wanted_model


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clipsearch.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_nearest_file_above_an_image_folder_counts(tmp_path: Path) -> None:
    top = write(tmp_path, 'model = "openai"')
    near = write(tmp_path / "a" / "b", 'model = "picturebook"')
    (tmp_path / "a" / "b" / "c").mkdir()
    assert wanted_model(None, [tmp_path / "a" / "b" / "c"]) == ("picturebook", f"from {near}")
    assert wanted_model(None, [tmp_path / "a"]) == ("openai", f"from {top}")


def test_flag_beats_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 'model = "a"')
    monkeypatch.setenv("CLIPSEARCH_MODEL", "b")
    assert wanted_model("c", [tmp_path]) == ("c", "as asked for")
    assert wanted_model(None, [tmp_path]) == ("b", "from CLIPSEARCH_MODEL")


def test_a_relative_model_is_taken_from_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a", 'model = "../models/mine"')
    assert read_settings(path).model == str(tmp_path / "models" / "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [("model = 3", "model .*3"), ("modle = 'x'", "'modle'"), ("model =", r"clipsearch\.toml")],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_settings(write(tmp_path, text))


def test_two_folders_that_want_different_models_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", 'model = "x"')
    write(tmp_path / "b", 'model = "y"')
    with pytest.raises(InputError, match=r"'x'.*'y'"):
        wanted_model(None, [tmp_path / "a", tmp_path / "b"])
