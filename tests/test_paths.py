"""When two paths are one place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipsearch.paths import same_place, spellings


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder `real` with a file, to which `link` leads, and `up/inner` to its folder `sub`."""
    folder = tmp_path / "real"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(b"a")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "inner").symlink_to(folder / "sub")
    return folder


def b(path: Path) -> bytes:
    return os.fsencode(path)


def test_a_link_and_its_target_are_one_place(real: Path, tmp_path: Path) -> None:
    assert same_place(b(real), b(tmp_path / "link"))
    assert same_place(b(real / "sub" / "a.png"), b(tmp_path / "up" / "inner" / "a.png"))
    assert not same_place(b(real), b(real / "sub"))


def test_two_names_of_one_file_are_one_place_and_a_copy_is_another(real: Path) -> None:
    os.link(real / "sub" / "a.png", real / "hard.png")
    (real / "copy.png").write_bytes(b"a")
    assert same_place(b(real / "hard.png"), b(real / "sub" / "a.png"))
    assert not same_place(b(real / "copy.png"), b(real / "sub" / "a.png"))


def test_what_is_gone_is_one_place_where_its_folder_is(real: Path, tmp_path: Path) -> None:
    assert same_place(b(real / "gone"), b(tmp_path / "link" / "gone"))
    assert not same_place(b(real / "gone"), b(tmp_path / "link" / "other"))


def test_a_folder_is_spelled_as_the_root_was_typed(real: Path, tmp_path: Path) -> None:
    roots = [b(tmp_path / "link"), b(tmp_path / "elsewhere")]
    assert spellings(b(real), roots) == [b(real), b(tmp_path / "link")]
    assert spellings(b(real / "sub"), roots) == [b(real / "sub"), b(tmp_path / "link" / "sub")]
    assert spellings(b(tmp_path / "up" / "inner"), roots)[1:] == [b(tmp_path / "link" / "sub")]
    assert spellings(b(real / "gone" / "x.png"), roots)[1:] == [b(tmp_path / "link" / "gone" / "x.png")]


def test_a_folder_around_a_root_brings_the_whole_root(real: Path, tmp_path: Path) -> None:
    (tmp_path / "top").symlink_to(real)
    assert spellings(b(tmp_path / "top"), [b(real / "sub")]) == [b(tmp_path / "top"), b(real / "sub")]
    assert spellings(b(real), [b(tmp_path / "up" / "inner")]) == [b(real), b(tmp_path / "up" / "inner")]


def test_what_has_nothing_to_do_with_the_roots_is_spelled_as_it_is(real: Path, tmp_path: Path) -> None:
    assert spellings(b(tmp_path / "up"), [b(real)]) == [b(tmp_path / "up")]
    assert spellings(b(tmp_path / "gone"), [b(tmp_path / "gone too")]) == [b(tmp_path / "gone")]
