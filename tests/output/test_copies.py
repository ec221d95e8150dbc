"""Copies of hits, and links to them: nothing is overwritten, nothing is left half written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, deny, paint
from faulty import Faults, read_log
from PIL import Image

from clipsearch.errors import InputError
from clipsearch.output.copies import Region, place
from clipsearch.system import copying, naming


@pytest.fixture
def two(tmp_path: Path) -> list[bytes]:
    """Two different pictures with the same name."""
    return [
        os.fsencode(paint(tmp_path / "one" / "cat.png", "red")),
        os.fsencode(paint(tmp_path / "two" / "cat.png", "green")),
    ]


def content(path: bytes | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def contents(folder: Path) -> dict[bytes, bytes]:
    """What files are in a folder, also hidden ones."""
    raw = os.fsencode(folder)
    return {name: content(os.path.join(raw, name)) for name in os.listdir(raw)}


both = pytest.mark.parametrize("link", [False, True], ids=["copy", "link"])


@both
def test_hits_with_the_same_name_stand_beside_each_other(two: list[bytes], tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    said = place(two, tmp_path / "new" / "target", link=link)
    assert contents(tmp_path / "new" / "target") == {b"cat.png": content(two[0]), b"cat-2.png": content(two[1])}
    assert re.search(r"^Linked 2 .*target\.$" if link else r"^Copied 2 .*target\.$", said)


@both
def test_what_is_there_is_never_overwritten(two: list[bytes], tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    target = tmp_path / "target"
    target.mkdir()
    (target / "cat.png").write_bytes(b"something else")
    (target / "cat-2.png").mkdir()
    (target / "cat-3.png").symlink_to("nowhere")
    place(two, target, link=link)
    assert (target / "cat.png").read_bytes() == b"something else"
    assert (target / "cat-2.png").is_dir()
    assert os.readlink(target / "cat-3.png") == "nowhere"
    assert (target / "cat-4.png").read_bytes() == content(two[0])
    assert (target / "cat-5.png").read_bytes() == content(two[1])
    assert len(list(target.iterdir())) == 5


@both
def test_a_second_run_changes_nothing(two: list[bytes], tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    target = tmp_path / "target"
    place(two, target, link=link)
    before = {path: path.lstat() for path in target.iterdir()}
    said = place(two, target, link=link)
    assert {path: path.lstat() for path in target.iterdir()} == before
    assert re.search(" 0 .*; 2 ", said)


def test_the_same_content_is_copied_once(two: list[bytes], tmp_path: Path) -> None:
    os.mkdir(tmp_path / "three")
    shutil.copy(os.fsdecode(two[0]), tmp_path / "three")
    again = os.fsencode(tmp_path / "three" / "cat.png")
    said = place([two[0], again, two[0]], tmp_path / "target", link=False)
    assert contents(tmp_path / "target") == {b"cat.png": content(two[0])}
    assert said.startswith("Copied 1 ")


def test_links_tell_images_apart_even_if_they_look_the_same(two: list[bytes], tmp_path: Path) -> None:
    os.mkdir(tmp_path / "three")
    shutil.copy(os.fsdecode(two[0]), tmp_path / "three")
    again = os.fsencode(tmp_path / "three" / "cat.png")
    place([two[0], again], tmp_path / "target", link=True)
    assert {os.readlink(path) for path in (tmp_path / "target").iterdir()} == {os.fsdecode(two[0]), os.fsdecode(again)}


def test_links_are_absolute_and_lead_to_the_images(two: list[bytes], tmp_path: Path) -> None:
    place(two, tmp_path / "target", link=True)
    for path in (tmp_path / "target").iterdir():
        assert path.is_symlink()
        assert os.path.isabs(os.readlink(path))
    assert {os.path.realpath(path) for path in (tmp_path / "target").iterdir()} == {
        os.path.realpath(os.fsdecode(path)) for path in two
    }


def test_a_copy_keeps_time_and_permissions(two: list[bytes], tmp_path: Path) -> None:
    os.utime(two[0], (1_600_000_000, 1_500_000_000))
    os.chmod(two[0], 0o640)
    place(two[:1], tmp_path / "target", link=False)
    found = (tmp_path / "target" / "cat.png").stat()
    assert (found.st_mtime, found.st_mode & 0o777) == (1_500_000_000, 0o640)
    assert found.st_nlink == 1


@both
def test_names_that_are_not_utf8_stay_as_they_are(tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    paths = []
    for name in (b"caf\xe9.png", b"\xff\xfe", b".hidden", b"two.dots.png", b"new\nline.png"):
        paths.append(os.path.join(os.fsencode(tmp_path), name))
        os.rename(paint(tmp_path / "picture.png", "red"), paths[-1])
        if not link:  # the same content would be there already
            with open(paths[-1], "ab") as file:
                file.write(name)
    place(paths, tmp_path / "target", link=link)
    assert contents(tmp_path / "target") == {os.path.basename(path): content(path) for path in paths}


@pytest.mark.parametrize(
    ("name", "second"),
    [
        (b"cat.png", b"cat-2.png"),
        (b"cat.tar.gz", b"cat.tar-2.gz"),
        (b"cat", b"cat-2"),
        (b".hidden", b".hidden-2"),
        (b"caf\xe9.png", b"caf\xe9-2.png"),
        (b"cat-2.png", b"cat-2-2.png"),
    ],
)
def test_the_number_stands_before_the_ending(tmp_path: Path, name: bytes, second: bytes) -> None:
    target = tmp_path / "target"
    target.mkdir()
    raw = os.path.join(os.fsencode(target), name)
    with open(raw, "wb") as file:
        file.write(b"in the way")
    path = os.path.join(os.fsencode(tmp_path), name)
    os.rename(paint(tmp_path / "picture.png", "red"), path)
    place([path], target, link=False)
    assert contents(target) == {name: b"in the way", second: content(path)}


@both
def test_a_folder_that_cannot_be_written_is_said(two: list[bytes], tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    target = tmp_path / "target"
    target.mkdir()
    with deny(target, 0o555), pytest.raises(InputError, match=r"target.*Permission denied.* 0 of 2 "):
        place(two, target, link=link)
    assert list(target.iterdir()) == []


@both
def test_a_target_that_is_a_file_is_said_and_stays(two: list[bytes], tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    (tmp_path / "target").write_text("a file")
    for target in (tmp_path / "target", tmp_path / "target" / "below"):
        with pytest.raises(InputError, match="target"):
            place(two, target, link=link)
    assert (tmp_path / "target").read_text() == "a file"


@both
def test_a_hit_that_vanished_is_named_and_the_others_before_it_stay(
    two: list[bytes],
    tmp_path: Path,
    link: bool,  # noqa: FBT001
) -> None:
    os.unlink(two[1])
    with pytest.raises(InputError, match=r"two/cat\.png: No such file .* 1 of 2 "):
        place(two, tmp_path / "target", link=link)
    assert contents(tmp_path / "target") == {b"cat.png": content(two[0])}


def test_an_image_that_cannot_be_read_is_named(two: list[bytes], tmp_path: Path) -> None:
    with deny(Path(os.fsdecode(two[0]))), pytest.raises(InputError, match=r"one/cat\.png: Permission denied"):
        place(two, tmp_path / "target", link=False)
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "full"])
def test_an_interrupted_copy_leaves_nothing(
    two: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    written: list[bytes] = []
    copyfile = shutil.copyfile

    def half(source: bytes, target: bytes) -> None:
        if source != two[1]:
            copyfile(source, target)
            return
        with open(target, "wb") as file:
            file.write(content(source)[:20])
        written.append(target)
        raise error

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError):
        place(two, tmp_path / "target", link=False)
    assert written  # it was under way
    assert contents(tmp_path / "target") == {b"cat.png": content(two[0])}


def no_such_step(*_: object) -> None:
    """Stands for a system or a file system that cannot rename without replacing, in one step."""
    raise naming.NotAtOnceError


def no_hard_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("hard_links", [True, False])
def test_copies_are_made_on_any_file_system(
    two: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hard_links: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(naming, "_at_once", no_such_step)
    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)
    place(two, tmp_path / "target", link=False)
    assert contents(tmp_path / "target") == {b"cat.png": content(two[0]), b"cat-2.png": content(two[1])}


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_name_that_is_taken_at_the_last_moment_is_left_alone(
    two: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hard_links: bool,  # noqa: FBT001
) -> None:
    def taken_meanwhile(part: bytes, target: bytes) -> None:
        if target.endswith(b"cat.png"):
            with open(target, "wb") as file:
                file.write(b"somebody else's")
        if not hard_links:
            no_hard_links()
        link(part, target)

    link: Callable[[bytes, bytes], None] = os.link
    monkeypatch.setattr(naming, "_at_once", no_such_step)
    monkeypatch.setattr(os, "link", taken_meanwhile)
    place(two[:1], tmp_path / "target", link=False)
    assert contents(tmp_path / "target") == {b"cat.png": b"somebody else's", b"cat-2.png": content(two[0])}


@pytest.mark.parametrize("saved", [True, False])
def test_a_renaming_that_fails_takes_back_only_the_empty_file_that_held_the_name(
    two: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: bool,  # noqa: FBT001
) -> None:
    def fails(_: bytes, target: bytes) -> None:
        if saved:
            with open(target, "wb") as file:
                file.write(b"somebody else's")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(naming, "_at_once", no_such_step)
    monkeypatch.setattr(os, "link", no_hard_links)
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(InputError, match="Input/output error"):
        place(two[:1], tmp_path / "target", link=False)
    assert contents(tmp_path / "target") == ({b"cat.png": b"somebody else's"} if saved else {})


def test_a_name_that_is_taken_right_before_the_step_that_gives_it_is_left_alone(
    two: list[bytes], tmp_path: Path, faults: Faults
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    program = f"""
from pathlib import Path
from clipsearch.output.copies import place
place([{two[0]!r}], Path({str(target)!r}), link=False)
"""
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", program], env=os.environ | faults.environment(target, log=log), check=True)
    (given,) = (call.number for call in read_log(log) if call.path == "cat.png")
    (target / "cat.png").unlink()
    env = faults.environment(target, given, meanwhile=f"printf else > {target}/cat.png")
    subprocess.run([sys.executable, "-c", program], env=os.environ | env, check=True)
    assert contents(target) == {b"cat.png": b"else", b"cat-2.png": content(two[0])}


def test_the_folder_of_the_hits_itself_is_left_as_it_is(two: list[bytes], tmp_path: Path) -> None:
    place(two[:1], tmp_path / "one", link=False)
    assert os.listdir(tmp_path / "one") == ["cat.png"]


# -- regions -----------------------------------------------------------------------------------------------------

BOX = (30, 20, 80, 90)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture of 120 x 100 pixels, no two parts of which are alike."""
    levels = np.random.default_rng(5).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    (tmp_path / "one").mkdir()
    Image.fromarray(levels).resize((120, 100)).save(tmp_path / "one" / "noise.png")
    return tmp_path / "one" / "noise.png"


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32)


@pytest.mark.parametrize(
    ("ending", "made"),
    [("png", "png"), ("bmp", "png"), ("tiff", "png"), ("gif", "png"), ("jpg", "jpg"), ("webp", "jpg"), ("avif", "jpg")],
)
def test_a_region_becomes_a_file_of_a_fitting_format(noise: Path, tmp_path: Path, ending: str, made: str) -> None:
    source = noise.with_name(f"a.b.{ending}")
    with Image.open(noise) as image:
        image.save(source)
    said = place([Region(os.fsencode(source), BOX)], tmp_path / "target", link=False)
    (copy,) = (tmp_path / "target").iterdir()
    assert copy.name == f"a.b-crop.{made}"
    with Image.open(copy) as image:
        assert (image.format, image.size) == ({"png": "PNG", "jpg": "JPEG"}[made], (50, 70))
    wanted = pixels(source)[20:90, 30:80]
    difference = np.abs(pixels(copy) - wanted)
    assert difference.max() == 0 if made == "png" else difference.mean() < 3
    assert said == f"Copied 1 image to {tmp_path}/target."


def test_the_region_of_an_image_that_lies_on_its_side_is_upright(noise: Path, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # turn it clockwise to see it
    with Image.open(noise) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(noise.with_name("side.jpg"), exif=turned, quality=95)
    place([Region(os.fsencode(noise.with_name("side.jpg")), BOX)], tmp_path / "target", link=False)
    with Image.open(tmp_path / "target" / "side-crop.jpg") as image:
        assert 0x0112 not in image.getexif()
    assert np.abs(pixels(tmp_path / "target" / "side-crop.jpg") - pixels(noise)[20:90, 30:80]).mean() < 3


def test_regions_and_whole_images_stand_beside_each_other_and_replace_nothing(noise: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "noise-crop.png").write_bytes(b"something else")
    (target / "noise-crop-2.png").symlink_to("nowhere")
    path = os.fsencode(noise)
    wanted: list[bytes | Region] = [Region(path, BOX), path, Region(path, (0, 0, 9, 9)), Region(path, BOX)]
    assert place(wanted, target, link=False).startswith("Copied 3 images ")
    assert (target / "noise-crop.png").read_bytes() == b"something else"
    assert os.readlink(target / "noise-crop-2.png") == "nowhere"
    assert (target / "noise.png").read_bytes() == noise.read_bytes()
    assert [pixels(target / f"noise-crop-{number}.png").shape for number in (3, 4)] == [(70, 50, 3), (9, 9, 3)]
    before = {path: path.lstat() for path in target.iterdir()}
    assert re.search(" 0 .*; 3 ", place(wanted, target, link=False))
    assert {path: path.lstat() for path in target.iterdir()} == before


def test_the_file_of_a_region_keeps_time_and_permissions(noise: Path, tmp_path: Path) -> None:
    os.utime(noise, (1_600_000_000, 1_500_000_000))
    os.chmod(noise, 0o640)
    place([Region(os.fsencode(noise), BOX)], tmp_path / "target", link=False)
    found = (tmp_path / "target" / "noise-crop.png").stat()
    assert (found.st_mtime, found.st_mode & 0o777) == (1_500_000_000, 0o640)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "it is gone"),
        (b"no picture", "not an image of a known format"),
        ("smaller", "it has changed since .* 64 x 48 "),
    ],
)
def test_a_region_that_cannot_be_cut_out_is_named_and_the_others_before_it_stay(
    noise: Path, tmp_path: Path, content: bytes | str | None, said: str
) -> None:
    other = paint(tmp_path / "two" / "cat.png", "red")
    if content is None:
        other.unlink()
    elif isinstance(content, bytes):
        other.write_bytes(content)
    regions = [Region(os.fsencode(noise), BOX), Region(os.fsencode(other), BOX)]
    with pytest.raises(InputError, match=rf"two/cat\.png: {said}.* 1 of 2 "):
        place(regions, tmp_path / "target", link=False)
    assert list(contents(tmp_path / "target")) == [b"noise-crop.png"]


@pytest.mark.parametrize("step", ["sync", "rename_ours"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "full"])
def test_the_file_of_a_region_that_is_interrupted_leaves_nothing(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    tried: list[object] = []

    def fail(*given: object) -> None:
        tried.append(given)
        raise error

    monkeypatch.setattr(copying, step, fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError):
        place([Region(os.fsencode(noise), BOX)], tmp_path / "target", link=False)
    assert tried
    assert contents(tmp_path / "target") == {}


# -- with the real command ---------------------------------------------------------------------------------------


def test_the_command_copies_and_links_what_it_shows(sample_index: Path, run: Run, tmp_path: Path) -> None:
    arguments = ("query", "a dog is sleeping", "-k", "3", "-0")
    done = run(*arguments, "--copy-to", tmp_path / "copies", "--link-to", tmp_path / "links", cwd=sample_index)
    assert done.returncode == 0
    paths = [sample_index / os.fsdecode(path) for path in done.stdout.split(b"\0")[:-1]]
    wanted = {os.fsencode(path.name): path.read_bytes() for path in paths}
    assert len(wanted) == 3
    assert contents(tmp_path / "copies") == contents(tmp_path / "links") == wanted
    assert all(path.is_symlink() for path in (tmp_path / "links").iterdir())
    assert not any(path.is_symlink() for path in (tmp_path / "copies").iterdir())
    said = done.stderr.decode().splitlines()
    assert said == [f"Copied 3 images to {tmp_path}/copies.", f"Linked 3 images to {tmp_path}/links."]
    again = run(*arguments, "--copy-to", tmp_path / "copies", cwd=sample_index)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert contents(tmp_path / "copies") == wanted


def test_nothing_found_makes_no_folder(sample_index: Path, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "copies"
    assert run("query", "a dog", "--min-score", "1", "--copy-to", target, cwd=sample_index).returncode == 1
    assert not target.exists()


def test_the_command_says_in_one_line_why_it_cannot_copy(sample_index: Path, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o555)
    done = run("query", "a dog", "-k", "2", "-0", "--copy-to", target, cwd=sample_index, unprivileged=True)
    said = done.stderr.decode()
    assert done.returncode == 2
    assert done.stdout.count(b"\0") == 2  # the hits are there all the same
    assert re.search(f"{target}: .*Permission denied.* 0 of 2 ", said)
    assert said.count("\n") == 1
    assert list(target.iterdir()) == []


def test_what_has_no_region_is_copied_whole_and_that_is_said(sample_index: Path, run: Run, tmp_path: Path) -> None:
    done = run("query", "a dog", "-k", "2", "-0", "--crop", "--copy-to", tmp_path / "copies", cwd=sample_index)
    assert done.returncode == 0
    paths = [sample_index / os.fsdecode(path) for path in done.stdout.split(b"\0")[:-1]]
    assert contents(tmp_path / "copies") == {os.fsencode(path.name): path.read_bytes() for path in paths}
    said = done.stderr.decode().splitlines()
    assert said[0] == f"Copied 2 images to {tmp_path}/copies."
    assert re.fullmatch(r"Nothing was cropped: .* clipsearch index --regions", said[1])


@pytest.mark.parametrize(
    ("options", "hint"),
    [([], "--preview, --html FILE or --copy-to DIR"), (["--link-to", "links"], "use --copy-to DIR")],
)
def test_cropping_for_nothing_or_for_links_is_refused(
    sample_index: Path, run: Run, tmp_path: Path, options: list[str], hint: str
) -> None:
    done = run("query", "a dog", "--crop", *options, "--index", sample_index / ".clipsearch", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert hint in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []
