"""What becomes of images that are no longer found: a drive that is not mounted costs nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from conftest import COLOURS, Run, deny, index, paint
from tiny import TinyEncoder, Watcher, update

from clipsearch.images.files import Rules
from clipsearch.index.format import FOLDER, Folder
from clipsearch.index.missing import Drives, Kept, Missing
from clipsearch.index.reading import Store
from clipsearch.index.summary import Summary
from clipsearch.index.verifying import verify
from clipsearch.index.writing import Writer

PB = ("--model", "picturebook")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Pictures in two folders of one root, one of them two folders deep, and one picture in the root itself."""
    for colour in COLOURS[:5]:
        paint(tmp_path / "p" / "usb" / "DCIM" / f"{colour}.png", colour)
    for colour in COLOURS[5:]:
        paint(tmp_path / "p" / "home" / f"{colour}.png", colour)
    paint(tmp_path / "p" / "top.png", "cyan")
    assert refreshed(tmp_path).images == 11
    return tmp_path


def refreshed(home: Path, *, allow_empty: bool = False, rules: Rules | None = None) -> Summary:
    """What a run over the root does, after which the index must be sound."""
    summary = update(home / FOLDER, home / "p", allow_empty=allow_empty, rules=rules)
    with closing(Store.open(home / FOLDER)) as store:
        assert verify(store) == []
        assert store.count() == summary.images
    return summary


def folders(home: Path) -> list[Folder]:
    with closing(Store.open(home / FOLDER)) as store:
        return store.folders()


def kept(home: Path, folder: str, images: int, *, away: bool = False) -> list[Kept]:
    return [Kept(os.fsencode(home / folder), images, away)]


@pytest.mark.parametrize("how", ["emptied", "gone"])
def test_a_folder_that_loses_all_its_images_keeps_their_records_in_every_run(home: Path, how: str) -> None:
    (home / "p" / "usb").rename(home / "aside")
    if how == "emptied":
        (home / "p" / "usb").mkdir()
    for _ in range(3):
        summary = refreshed(home)
        assert summary.kept == kept(home, "p/usb", 5)  # the topmost folder that lost all
        assert (summary.images, summary.removed, summary.unchanged) == (11, 0, 6)
    if how == "emptied":
        (home / "p" / "usb").rmdir()
    (home / "aside").rename(home / "p" / "usb")
    encoder, progress = TinyEncoder(), Watcher()
    summary = update(home / FOLDER, home / "p", encoder=encoder, progress=progress)
    assert (summary.images, summary.unchanged, summary.kept, encoder.embedded, progress.total) == (11, 11, [], 0, 0)
    assert folders(home) == []


def test_one_image_of_a_folder_is_removed_as_ever_and_so_are_some_of_several(home: Path) -> None:
    paint(home / "p" / "single" / "a.png", "olive")
    assert refreshed(home).images == 12
    shutil.rmtree(home / "p" / "single")
    (home / "p" / "top.png").unlink()
    for colour in COLOURS[1:5]:
        (home / "p" / "usb" / "DCIM" / f"{colour}.png").unlink()
    summary = refreshed(home)
    assert (summary.kept, summary.removed, summary.images) == ([], 6, 6)


def test_a_folder_that_got_other_images_is_not_empty(home: Path) -> None:
    shutil.rmtree(home / "p" / "usb" / "DCIM")
    paint(home / "p" / "usb" / "new.png", "olive")
    # DCIM lost all it had; its neighbour shows that the folder above is there.
    assert refreshed(home).kept == kept(home, "p/usb/DCIM", 5)
    paint(home / "p" / "usb" / "DCIM" / "new.png", "navy")
    summary = refreshed(home)
    assert (summary.kept, summary.removed, summary.images) == ([], 5, 8)


def test_folders_between_others_are_told_apart(tmp_path: Path) -> None:
    for i, name in enumerate(["a/1", "a-b/1", "a-b/2", "a0/1", "b/c/1", "b/c/2", "b/d/1", "b/d/2", "b.png"]):
        paint(tmp_path / "p" / f"{name.removesuffix('.png')}.png", f"#{i * 20:06x}")
    refreshed(tmp_path)
    shutil.rmtree(tmp_path / "p" / "a-b")
    shutil.rmtree(tmp_path / "p" / "b" / "c")
    summary = refreshed(tmp_path)
    assert summary.kept == [*kept(tmp_path, "p/a-b", 2), *kept(tmp_path, "p/b/c", 2)]
    shutil.rmtree(tmp_path / "p" / "b" / "d")
    assert refreshed(tmp_path).kept == [*kept(tmp_path, "p/a-b", 2), *kept(tmp_path, "p/b", 4)]


def test_images_that_are_found_elsewhere_have_moved(home: Path) -> None:
    (home / "p" / "usb").rename(home / "p" / "renamed")
    summary = refreshed(home)
    assert (summary.moved, summary.kept, summary.removed) == (5, [], 0)
    # Of a folder that is taken apart, one image that is nowhere is removed, several are kept.
    (home / "p" / "renamed" / "DCIM").rename(home / "p" / "again")
    (home / "p" / "again" / f"{COLOURS[0]}.png").unlink()
    summary = refreshed(home)
    assert (summary.moved, summary.kept, summary.removed) == (4, [], 1)
    (home / "p" / "again").rename(home / "p" / "once more")
    for colour in COLOURS[1:3]:
        (home / "p" / "once more" / f"{colour}.png").unlink()
    summary = refreshed(home)
    assert (summary.moved, summary.kept, summary.removed) == (2, kept(home, "p/again", 2), 0)
    # And a kept image can still turn up somewhere.
    paint(home / "p" / "late.png", COLOURS[1])
    summary = refreshed(home)
    assert (summary.moved, summary.embedded, summary.removed, summary.images) == (1, 0, 1, 9)


def test_a_folder_that_is_newly_left_out_is_removed(home: Path) -> None:
    summary = refreshed(home, rules=Rules(exclude=("usb/",)))
    assert (summary.kept, summary.removed, summary.images) == ([], 5, 6)


def test_allow_empty_says_that_they_are_gone(home: Path) -> None:
    shutil.rmtree(home / "p" / "usb")
    assert refreshed(home).kept
    summary = refreshed(home, allow_empty=True)
    assert (summary.kept, summary.removed, summary.images) == ([], 5, 6)
    assert folders(home) == []
    assert refreshed(home).removed == 0


def test_what_lies_in_a_folder_that_cannot_be_listed_is_no_part_of_an_empty_one(home: Path) -> None:
    for colour in ("olive", "navy"):
        paint(home / "p" / "usb" / "closed" / f"{colour}.png", colour)
    refreshed(home)
    shutil.rmtree(home / "p" / "usb" / "DCIM")
    with deny(home / "p" / "usb" / "closed"):
        summary = refreshed(home)
    assert summary.kept == kept(home, "p/usb/DCIM", 5)
    assert summary.images == 13


def test_a_folder_that_goes_while_its_files_are_read_is_left_to_the_next_run(home: Path) -> None:
    for colour in COLOURS[:5]:
        os.utime(home / "p" / "usb" / "DCIM" / f"{colour}.png", (1, 1))

    class Unplug(Watcher):
        def start(self, total: int) -> None:
            super().start(total)
            (home / "p" / "usb").rename(home / "aside")

    summary = update(home / FOLDER, home / "p", progress=Unplug())
    assert (summary.images, summary.removed) == (11, 0)
    assert refreshed(home).kept == kept(home, "p/usb", 5)


def test_kept_images_are_told_found_and_forgotten_with_the_command_that_is_named(pictures: Path, run: Run) -> None:
    home = pictures.parent
    index(run, "pictures", *PB, cwd=home)
    (pictures / "warm").rename(home / "aside")
    done = run("index", "--json", cwd=home)
    summary, talk = json.loads(done.stdout), done.stderr.decode()
    assert (summary["images"], summary["removed"], summary["kept"], summary["unchanged"]) == (10, 0, 5, 5)
    assert summary["kept_folders"] == [{"path": "pictures/warm", "images": 5, "reason": "empty"}]
    assert re.search("5 images .*pictures/warm", talk)
    assert "5 kept" in talk
    status = json.loads(run("status", "--json", cwd=home).stdout)
    assert (status["images"], status["kept_folders"]) == (10, summary["kept_folders"])
    assert b"pictures/warm (5 images" in run("status", cwd=home).stdout
    assert run("query", "a dog", "-k", "all", cwd=home).stdout.count(b"\n") == 10
    command = shlex.split(talk.partition("If they are gone for good: clipsearch ")[2].splitlines()[0])
    assert command == ["forget", "pictures/warm"]
    done = run(*command, cwd=home)
    assert (done.returncode, b"pictures/warm: 5 images" in done.stderr) == (0, True)
    status = json.loads(run("status", "--json", "--verify", cwd=home).stdout)
    assert (status["images"], status["kept_folders"], status["problems"]) == (5, [], [])
    assert [root["path"] for root in status["roots"]] == ["pictures"]
    assert run("forget", "pictures/cold", cwd=home).returncode == 2
    assert index(run, cwd=home)["kept"] == 0


def test_a_part_of_what_is_kept_can_be_forgotten(home: Path) -> None:
    paint(home / "p" / "usb" / "other" / "a.png", "olive")
    refreshed(home)
    shutil.rmtree(home / "p" / "usb")
    assert refreshed(home).kept == kept(home, "p/usb", 6)
    with Writer.locked(home / FOLDER) as writer:
        assert writer.forget([os.fsencode(home / "p" / "usb" / "DCIM")]) == [5]
        assert [folder.kept for folder in writer.folders()] == [1]


# -- drives --------------------------------------------------------------------------------------------------


@pytest.fixture
def stick(another_file_system: Path) -> Path:
    """A folder on another device than temporary files, that can be mounted somewhere else."""
    try:
        subprocess.run(["unshare", "--mount", "true"], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount (root on Linux)")
    return another_file_system


def with_mounted(place: Path, at: Path) -> list[str]:
    """What to put before a command that shall see `place` mounted at `at`."""
    script = f'mount --bind {shlex.quote(str(place))} {shlex.quote(str(at))} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "--"]


def indexed(run: Run, home: Path, stick: Path | None, *arguments: str) -> dict[str, object]:
    """The summary of a run, for which `stick` is mounted at p/usb."""
    before = [] if stick is None else with_mounted(stick, home / "p" / "usb")
    done = run("index", *arguments, "--json", cwd=home, before=before)
    assert done.returncode == 0, done.stderr.decode()
    summary: dict[str, object] = json.loads(done.stdout)
    return {name: summary[name] for name in ("images", "embedded", "unchanged", "removed", "kept")}


@pytest.fixture
def mounted(tmp_path: Path, stick: Path, run: Run) -> Path:
    """A root in which a drive with three pictures is mounted at p/usb, beside two of its own."""
    for colour in COLOURS[:3]:
        paint(stick / f"{colour}.png", colour)
    for colour in COLOURS[3:5]:
        paint(tmp_path / "p" / "home" / f"{colour}.png", colour)
    (tmp_path / "p" / "usb").mkdir()
    assert indexed(run, tmp_path, stick, "p", *PB)["images"] == 5
    return tmp_path


def test_a_drive_that_is_not_mounted_is_known_again_and_what_it_lacks_then_is_gone(
    mounted: Path, stick: Path, run: Run
) -> None:
    for _ in range(2):
        away = indexed(run, mounted, None)
        assert away == {"images": 5, "embedded": 0, "unchanged": 2, "removed": 0, "kept": 3}
    assert indexed(run, mounted, stick)["unchanged"] == 5
    indexed(run, mounted, None)
    (stick / "red.png").unlink()
    back = indexed(run, mounted, stick)
    assert back == {"images": 4, "embedded": 0, "unchanged": 4, "removed": 1, "kept": 0}


def test_a_drive_that_comes_back_empty_shows_that_its_images_are_gone(mounted: Path, stick: Path, run: Run) -> None:
    assert indexed(run, mounted, None)["kept"] == 3
    for path in stick.iterdir():
        path.unlink()
    assert indexed(run, mounted, stick) == {"images": 2, "embedded": 0, "unchanged": 2, "removed": 3, "kept": 0}


def test_even_a_single_image_of_a_drive_that_is_away_is_kept(mounted: Path, stick: Path, run: Run) -> None:
    for colour in COLOURS[:2]:
        (stick / f"{colour}.png").unlink()
    assert indexed(run, mounted, stick)["removed"] == 2
    # In its place lies another picture, on the disk below.
    paint(mounted / "p" / "usb" / "other.png", "olive")
    done = run("index", "--json", cwd=mounted)
    summary = json.loads(done.stdout)
    assert (summary["removed"], summary["kept"], summary["embedded"]) == (0, 1, 1)
    assert summary["kept_folders"] == [{"path": "p/usb", "images": 1, "reason": "drive"}]
    assert b"drive" in done.stderr


BEFORE = "device:2065"
MOUNT = b"/p/usb"


def drives_and_missing(before: Folder, now: str | None, missing: int, *, unchanged: bool) -> tuple[Drives, Missing]:
    """After a search that met `now` at the mount, found one image there or none, and missed so many."""
    lost = Missing(sqlite3.connect(":memory:"))
    for i in range(missing):
        lost.not_found(b"/p/usb/%d.png" % i, b"/p/a.png")
    lost.found(b"/p/z.png")
    drives = Drives([before])
    if now is not None:
        drives.now[MOUNT] = now
    if unchanged:
        drives.unchanged(b"/p/usb/found.png")
    drives.searched(b"/p", lost)
    return drives, lost


@pytest.mark.parametrize(
    ("before", "now", "unchanged", "away"),
    [
        (Folder(MOUNT, BEFORE), None, False, True),
        # The number of a device is that of the slot: only its images tell that a drive is the same.
        (Folder(MOUNT, BEFORE), BEFORE, False, True),
        (Folder(MOUNT, BEFORE), BEFORE, True, False),
        (Folder(MOUNT, BEFORE), "device:2081", True, False),
        (Folder(MOUNT, "id:1"), "id:1", False, False),
        (Folder(MOUNT, "id:1"), "id:2", True, True),
        # Kept before: it is not back while as many are missing, though something else was indexed in its place.
        (Folder(MOUNT, BEFORE, 4, away=True), BEFORE, True, True),
        (Folder(MOUNT, BEFORE, 5, away=True), BEFORE, True, False),
        (Folder(MOUNT, "id:1", 5, away=True), "id:2", True, True),
        (Folder(MOUNT, "id:1", 4, away=True), "id:1", False, False),
    ],
)
def test_a_drive_is_known_by_its_id_or_by_its_images(
    before: Folder, now: str | None, *, unchanged: bool, away: bool
) -> None:
    drives, _ = drives_and_missing(before, now, 4, unchanged=unchanged)
    assert drives.is_back(MOUNT) == (not away)


def test_the_drive_that_is_away_is_remembered_and_not_the_one_in_its_place() -> None:
    drives, lost = drives_and_missing(Folder(MOUNT, "id:1"), "id:2", 4, unchanged=False)
    found = lost.keep(b"/p", drives)
    assert found == [Kept(MOUNT, 4, away=True)]
    assert drives.remembered(b"/p", found) == [Folder(MOUNT, "id:1", 4, away=True)]
    assert lost.count() == 0
