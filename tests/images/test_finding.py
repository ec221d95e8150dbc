"""Finding image files in folders."""

from __future__ import annotations

import os
import socket
import sys
import unicodedata
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import deny

from clipsearch.errors import InputError
from clipsearch.images.files import Rules
from clipsearch.images.finding import find_images


def names(root: Path, rules: Rules = Rules(), start: Path | None = None) -> list[str]:  # noqa: B008  (immutable)
    """What is found, relative to the root; problems in brackets."""
    found = find_images(os.fsencode(root), rules, start=os.fsencode(start) if start else None)
    return [
        os.path.relpath(os.fsdecode(file.path), root) + (f" ({file.problem})" if file.problem else "") for file in found
    ]


def make(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_recursively_whatever_the_case_of_their_ending(tmp_path: Path) -> None:
    make(tmp_path, "b.JPG", "a/2.png", "a/1.webp", "c.txt", ".hidden.png", ".git/x.png", "a/b/c.tiff", "d.NEF")
    assert names(tmp_path) == ["a/1.webp", "a/2.png", "a/b/c.tiff", "b.JPG", "d.NEF"]


def test_the_order_is_that_of_the_bytes_of_whole_paths(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a/z.png", "a-b.png", "a b/c.png", "a/b/c.png", "a/b.png", "A.png", "é.png", "a0.png")
    found = [os.fsencode(name) for name in names(tmp_path)]
    assert len(found) == 9
    assert found == sorted(found)


def test_a_file_can_be_a_root_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, "picture")
    assert [file.path for file in find_images(os.fsencode(tmp_path / "picture"))] == [os.fsencode(tmp_path / "picture")]


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n.png")
    with open(path, "wb"):
        pass
    assert [file.path for file in find_images(os.fsencode(tmp_path))] == [path]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^No such .*nowhere$"):
        list(find_images(os.fsencode(tmp_path / "nowhere")))


def test_a_root_that_is_neither_file_nor_folder_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png is a FIFO"):
        list(find_images(os.fsencode(tmp_path / "pipe.png")))


def test_what_only_looks_like_a_file_is_named_with_its_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere.png")
    (tmp_path / "c.png").symlink_to("c.png")
    (tmp_path / "d.png").symlink_to("/dev/zero")
    with closing(socket.socket(socket.AF_UNIX)) as endpoint:
        before = Path.cwd()
        os.chdir(tmp_path)  # a socket's path must be short
        endpoint.bind("e.png")
        os.chdir(before)
        assert names(tmp_path) == [
            "a.png (a FIFO, not a file)",
            "b.png (a link that leads nowhere)",
            "c.png (Too many levels of symbolic links)",
            "d.png (a device, not a file)",
            "e.png (a socket, not a file)",
        ]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "holiday.jpg/a.png")
    assert names(tmp_path) == ["holiday.jpg/a.png"]


def test_a_link_to_an_image_counts_as_an_image(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "b.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert names(tmp_path / "root") == ["b.png"]


# -- links to folders ----------------------------------------------------------------------------------------


def test_links_to_folders_are_followed_only_on_demand(tmp_path: Path) -> None:
    make(tmp_path, "root/a.png", "elsewhere/b.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root") == ["a.png"]
    assert names(tmp_path / "root", Rules(follow_symlinks=True)) == ["a.png", "link/b.png"]


def test_no_circle_of_links_is_endless_and_nothing_is_found_twice(tmp_path: Path) -> None:
    make(tmp_path, "root/a.png", "root/sub/b.png", "elsewhere/c.png", "elsewhere/deep/d.png", "e.png")
    root = tmp_path / "root"
    (root / "itself").symlink_to(root)
    (root / "parent").symlink_to(tmp_path)
    (root / "sub" / "up").symlink_to("..")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "out again").symlink_to(tmp_path / "elsewhere")
    (root / "deep").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    found = names(root, Rules(follow_symlinks=True))
    assert sorted(os.path.basename(name) for name in found) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert "sub/b.png" in found  # by its own path, not through a link


# -- hidden and excluded -------------------------------------------------------------------------------------


def test_hidden_files_are_found_on_demand(tmp_path: Path) -> None:
    make(tmp_path, ".a/b.png", ".c.png", "d.png")
    assert names(tmp_path) == ["d.png"]
    assert names(tmp_path, Rules(include_hidden=True)) == [".a/b.png", ".c.png", "d.png"]


def test_a_hidden_root_is_no_hidden_file(tmp_path: Path) -> None:
    make(tmp_path, ".root/a.png")
    assert names(tmp_path / ".root") == ["a.png"]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.gif"], ["a.png", "sub/c.png", "sub/deep/d.png"]),
        (["sub/"], ["a.png", "b.gif"]),
        (["/a.png", "deep"], ["b.gif", "sub/c.gif", "sub/c.png"]),
        (["*", "!*/", "!*.gif"], ["b.gif", "sub/c.gif"]),
        (["sub/**/d.png"], ["a.png", "b.gif", "sub/c.gif", "sub/c.png"]),
        (["# a comment", ""], ["a.png", "b.gif", "sub/c.gif", "sub/c.png", "sub/deep/d.png"]),
    ],
)
def test_patterns_follow_the_rules_of_gitignore(tmp_path: Path, patterns: list[str], left: list[str]) -> None:
    make(tmp_path, "a.png", "b.gif", "sub/c.png", "sub/c.gif", "sub/deep/d.png")
    assert names(tmp_path, Rules(exclude=tuple(patterns))) == left
    (tmp_path / ".clipsearchignore").write_text("\n".join(patterns))
    assert names(tmp_path) == left


def test_the_innermost_ignore_file_decides_and_the_flag_beats_them_all(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "sub/a.png", "sub/b.png", "other/b.png")
    (tmp_path / ".clipsearchignore").write_text("a.png\n")
    (tmp_path / "sub" / ".clipsearchignore").write_text("!a.png\n/b.png\n")
    assert names(tmp_path) == ["other/b.png", "sub/a.png"]
    assert names(tmp_path, Rules(exclude=("a.png", "!b.png"))) == ["other/b.png", "sub/b.png"]


def test_a_part_is_searched_with_the_rules_of_the_whole(tmp_path: Path) -> None:
    make(tmp_path, "sub/deep/a.png", "sub/deep/b.png", "sub/deep/c.png")
    (tmp_path / ".clipsearchignore").write_text("/sub/deep/a.png\n")
    (tmp_path / "sub" / ".clipsearchignore").write_text("b.png\n")
    for start in (None, tmp_path / "sub", tmp_path / "sub" / "deep"):
        assert names(tmp_path, start=start) == ["sub/deep/c.png"]
    assert names(tmp_path, Rules(exclude=("/sub/deep/c.png",)), tmp_path / "sub" / "deep") == []


def test_a_pattern_for_names_that_are_not_utf8(tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"tea.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    (tmp_path / ".clipsearchignore").write_bytes(b"caf\xe9*\n")
    assert names(tmp_path) == ["tea.png"]


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
@pytest.mark.parametrize("pattern", ["Mü*", "/강아지/", "für Opa/*.png", "**/[äü]ber.png", "!Mü*"])
@pytest.mark.parametrize("written", [str, decomposed], ids=["composed", "decomposed"])
@pytest.mark.parametrize("stored", [str, decomposed], ids=["composed", "decomposed"])
def test_a_pattern_matches_names_by_their_letters(
    tmp_path: Path, pattern: str, written: Callable[[str], str], stored: Callable[[str], str]
) -> None:
    files = {
        "Mü*": "Müller.png",
        "/강아지/": "강아지/a.png",
        "für Opa/*.png": "für Opa/b.png",
        "**/[äü]ber.png": "c/über.png",
    }
    make(tmp_path, "other.png", *map(stored, files.values()))
    lines = ("M*.png", written(pattern)) if pattern.startswith("!") else (written(pattern),)
    expected = sorted(stored(name) for name in ("other.png", *files.values()) if name != files.get(pattern))
    assert sorted(names(tmp_path, Rules(exclude=lines))) == expected
    (tmp_path / ".clipsearchignore").write_text("\n".join(lines))
    assert sorted(names(tmp_path)) == expected


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
def test_an_ascii_pattern_takes_names_as_they_are_stored(tmp_path: Path) -> None:
    make(tmp_path, "ü.png", decomposed("ä.png"))
    assert names(tmp_path, Rules(exclude=("?.png",))) == [decomposed("ä.png")]


def test_a_pattern_that_means_nothing_is_an_error_that_names_its_source(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    with pytest.raises(InputError, match=r"exclude: .*'!'"):
        names(tmp_path, Rules(exclude=("!",)))
    (tmp_path / ".clipsearchignore").write_text("!\n")
    with pytest.raises(InputError, match=r"\.clipsearchignore: .*'!'"):
        names(tmp_path)


# -- odd folders ---------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_found(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "closed/b.png", "d.png")
    told: list[tuple[bytes, str]] = []
    with deny(tmp_path / "closed"):
        found = find_images(os.fsencode(tmp_path), unreadable=lambda path, reason: told.append((path, reason)))
        assert [os.path.basename(file.path) for file in found] == [b"a.png", b"d.png"]
    ((path, reason),) = told
    assert path == os.fsencode(tmp_path / "closed")
    assert reason.endswith(": Permission denied")


def test_a_root_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    with deny(tmp_path / "closed"), pytest.raises(InputError, match=r"closed: Permission denied"):
        names(tmp_path / "closed")


def test_folders_may_be_nested_deeper_than_calls_and_longer_than_paths(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1500):
            os.mkdir("abc")
            os.chdir("abc")
        Path("lost.png").touch()
        told: list[str] = []
        found = find_images(os.fsencode(tmp_path), unreadable=lambda _, reason: told.append(reason))
        assert list(found) == []
        assert told == ["the folder cannot be read: File name too long"]
    finally:
        os.chdir(before)
        # Longer than a path can be: only step by step can it be removed again.
        _remove_chain(tmp_path)


def _remove_chain(top: Path) -> None:
    depth = 0
    before = Path.cwd()
    os.chdir(top)
    while os.path.isdir("abc"):
        os.chdir("abc")
        depth += 1
    Path("lost.png").unlink(missing_ok=True)
    for _ in range(depth):
        os.chdir("..")
        os.rmdir("abc")
    os.chdir(before)


def test_very_many_files_in_one_folder(tmp_path: Path) -> None:
    make(tmp_path, *(f"{i:05}.png" for i in range(5000)))
    assert names(tmp_path) == [f"{i:05}.png" for i in range(5000)]
