"""Finding image files in folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipsearch.errors import InputError
from clipsearch.images.finding import find_images


def names(root: Path) -> list[str]:
    return [os.path.relpath(os.fsdecode(file.path), root) for file in find_images(root)]


def test_images_are_found_recursively_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/2.png", "a/1.webp", "c.txt", ".hidden.png", ".git/x.png", "a/b/c.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a/1.webp", "a/2.png", "a/b/c.tiff", "b.JPG"]


def test_a_file_can_be_a_root_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "picture").touch()
    assert [file.path for file in find_images(tmp_path / "picture")] == [os.fsencode(tmp_path / "picture")]


def test_links_to_folders_and_dangling_links_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert names(tmp_path) == ["a.png"]


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n.png")
    with open(path, "wb"):
        pass
    assert [file.path for file in find_images(tmp_path)] == [path]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or folder"):
        list(find_images(tmp_path / "nowhere"))
