"""When two paths are one place, and commands in places with two names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COLOURS, Run, index, paint

from clipsearch.system.paths import roots_in, same_place, spellings


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


def test_a_root_lies_in_a_folder_by_whatever_names(real: Path, tmp_path: Path) -> None:
    (tmp_path / "top").symlink_to(real)
    assert roots_in(b(tmp_path / "top"), [b(real / "sub"), b(tmp_path / "up")]) == [b(real / "sub")]
    assert roots_in(b(real), [b(tmp_path / "up" / "inner")]) == [b(tmp_path / "up" / "inner")]
    assert roots_in(b(real), [b(real), b(real / "gone"), b(tmp_path / "gone")]) == [b(real), b(real / "gone")]
    assert roots_in(b(real / "sub"), [b(real)]) == []


def test_what_has_nothing_to_do_with_the_roots_is_spelled_as_it_is(real: Path, tmp_path: Path) -> None:
    assert spellings(b(tmp_path / "up"), [b(real)]) == [b(tmp_path / "up")]
    assert spellings(b(tmp_path / "gone"), [b(tmp_path / "gone too")]) == [b(tmp_path / "gone")]


@pytest.fixture
def linked(tmp_path: Path, run: Run) -> Path:
    """A folder with an index of `link`, which leads to `real`: three pictures there, and two in its folder `sub`."""
    for colour, name in zip(COLOURS, ("a", "b", "c", "sub/d", "sub/e"), strict=False):
        paint(tmp_path / "real" / f"{name}.png", colour)
    (tmp_path / "link").symlink_to("real")
    assert index(run, "link", "--model", "picturebook", cwd=tmp_path)["images"] == 5
    return tmp_path


def found(run: Run, *arguments: str | Path, cwd: Path, **environment: str) -> list[str]:
    """The paths that a search gives, in their order by name."""
    done = run(*arguments, "--format", "paths", "-k", "all", cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return sorted(done.stdout.decode().splitlines())


def test_a_query_in_a_folder_entered_through_a_link_finds_what_is_in_it(linked: Path, run: Run) -> None:
    inside = linked / "link" / "sub"
    assert found(run, "query", "red", cwd=inside, PWD=str(inside)) == ["d.png", "e.png"]
    whole = [str(linked / "link" / "sub" / name) for name in ("d.png", "e.png")]
    assert found(run, "query", "red", cwd=linked / "real" / "sub", PWD="") == whole


@pytest.mark.parametrize("pwd", ["/", "relative", "{}/link/..", "{}/gone"])
def test_a_shell_that_names_another_folder_is_not_believed(linked: Path, run: Run, pwd: str) -> None:
    given = pwd.format(linked)
    assert found(run, "query", "red", "--under", "sub", cwd=linked / "link", PWD=given)[0].endswith("link/sub/d.png")


def test_an_index_above_a_link_is_found_from_behind_it(tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "disk" / "photos" / "a.png", "red")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "photos").symlink_to(tmp_path / "disk" / "photos")
    index(run, "photos", "--model", "picturebook", cwd=tmp_path / "home")
    entered = tmp_path / "home" / "photos"
    assert found(run, "query", "red", cwd=entered, PWD=str(entered)) == ["a.png"]


@pytest.mark.parametrize("folder", ["real/sub", "link/sub", "other/sub", "real/sub/../../real/sub"])
def test_under_takes_any_name_of_a_folder(linked: Path, run: Run, folder: str) -> None:
    (linked / "other").symlink_to(linked / "real")
    assert found(run, "query", "red", "--under", folder, cwd=linked) == ["link/sub/d.png", "link/sub/e.png"]


def test_under_a_folder_around_a_root_finds_the_root(
    linked: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "around").symlink_to(linked)
    assert len(found(run, "query", "red", "--index", linked, "--under", elsewhere / "around", cwd=elsewhere)) == 5


def test_under_a_folder_that_is_gone_takes_its_other_name(linked: Path, run: Run) -> None:
    for path in (linked / "real" / "sub").iterdir():
        path.unlink()
    (linked / "real" / "sub").rmdir()
    assert found(run, "query", "red", "--under", "real/sub", cwd=linked) == ["link/sub/d.png", "link/sub/e.png"]


def test_under_takes_the_name_behind_a_link_that_was_followed(tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "root" / "a.png", "red")
    paint(tmp_path / "behind" / "deep" / "b.png", "blue")
    (tmp_path / "root" / "in").symlink_to(tmp_path / "behind")
    index(run, "root", "--follow-symlinks", "--model", "picturebook", cwd=tmp_path)
    for folder in ("behind", "behind/deep", "root/in/deep"):
        assert found(run, "query", "red", "--under", folder, cwd=tmp_path) == ["root/in/deep/b.png"]


def test_lists_of_files_take_any_names_of_their_folders(linked: Path, run: Run) -> None:
    (linked / "list").write_text("real/a.png\nlink/b.png\nreal/sub/d.png\nreal/gone.png\n")
    expected = ["link/a.png", "link/b.png", "link/sub/d.png"]
    assert found(run, "query", "red", "--files-from", "list", cwd=linked) == expected


def test_globs_are_seen_from_the_current_folder_by_any_name(linked: Path, run: Run) -> None:
    assert len(found(run, "query", "red", "--glob", "/*.png", cwd=linked / "real")) == 3
    assert len(found(run, "query", "red", "--glob", "/sub/*", cwd=linked / "link")) == 2


@pytest.mark.parametrize("name", ["real/a.png", "link/a.png", "names/soft.png", "real/hard.png"])
def test_an_image_is_not_similar_to_itself_by_another_name(linked: Path, run: Run, name: str) -> None:
    (linked / "names").mkdir()
    (linked / "names" / "soft.png").symlink_to(linked / "link" / "a.png")
    os.link(linked / "real" / "a.png", linked / "real" / "hard.png")
    (linked / "real" / "copy.png").write_bytes((linked / "real" / "a.png").read_bytes())
    index(run, cwd=linked)
    others = ["link/b.png", "link/c.png", "link/copy.png", "link/sub/d.png", "link/sub/e.png"]
    assert found(run, "similar", name, cwd=linked) == others


def test_a_second_mount_of_a_folder_is_the_same_place(linked: Path, environment: dict[str, str]) -> None:
    (linked / "mount").mkdir()
    script = (
        f"mount --bind real mount && exec {sys.executable} -m clipsearch query red --under mount/sub --format paths"
    )
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:  # noqa: S607
        pytest.skip("no mounts may be made here")
    command = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(command, cwd=linked, env=environment, capture_output=True, check=False)
    assert sorted(done.stdout.decode().split()) == ["link/sub/d.png", "link/sub/e.png"], done.stderr.decode()


@pytest.mark.parametrize("name", ["real", "link", "other"])
def test_a_root_is_forgotten_by_any_of_its_names(linked: Path, run: Run, name: str) -> None:
    (linked / "other").symlink_to(linked / "real")
    done = run("forget", name, cwd=linked)
    assert done.returncode == 0, done.stderr.decode()
    assert b"5 images" in done.stderr
    assert b'"images": 0,' in run("status", "--json", cwd=linked).stdout
    refused = run("forget", "real/sub", cwd=linked)
    assert refused.returncode == 2
