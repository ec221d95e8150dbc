"""Indexes of parts of a folder: together they hold every picture once, whatever is mounted where."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from conftest import COLOURS, Run, paint
from tiny import TinyEncoder, update

from clipsearch.errors import InputError
from clipsearch.images.finding import find_images
from clipsearch.images.parts import Part
from clipsearch.index.format import FOLDER
from clipsearch.index.missing import Kept
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify

PARTS = [Part(number, 3) for number in (1, 2, 3)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Twenty pictures in two folders of a root."""
    for number, colour in enumerate(COLOURS):
        paint(tmp_path / "p" / "a" / f"{colour}.png", colour)
        paint(tmp_path / "p" / "b" / f"{number}.png", colour, (40 + number, 40))
    return tmp_path


def images(folder: Path) -> list[bytes]:
    with closing(Store.open(folder)) as store:
        assert verify(store) == []
        return [record.path for record in store.records() if record.row is not None]


def of_part(root: Path, part: Part) -> set[str]:
    """The files of a part, relative to the root."""
    found = find_images(os.fsencode(root), part=part, looking=False)
    return {os.path.relpath(os.fsdecode(file.path), root) for file in found if file.size >= 0}


def test_each_file_is_in_one_part_by_its_path_below_the_root_alone(home: Path) -> None:
    (home / "p" / "notes.txt").write_text("no picture")
    (home / "p" / "without an ending").write_bytes((home / "p" / "a" / "red.png").read_bytes())
    shutil.copytree(home / "p", home / "elsewhere" / "mounted")
    parts = [of_part(home / "p", part) for part in PARTS]
    assert parts == [of_part(home / "elsewhere" / "mounted", part) for part in PARTS]
    assert sum(map(len, parts)) == 21 == len(set.union(*parts))
    # As docs/index-format.md says, so that other programs can tell.
    assert Part(1, 3).holds(b"a/red.png") is (int.from_bytes(bytes.fromhex("072d04aba6f3d2f5"), "big") % 3 == 0)
    names = [unicodedata.normalize(form, "b/für.png").encode() for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    assert all(part.holds(names[0]) == part.holds(names[1]) for part in PARTS)


def test_parts_are_nearly_equal() -> None:
    sizes = [sum(Part(number, 8).holds(b"%06d.jpg" % file) for file in range(8000)) for number in range(1, 9)]
    assert sum(sizes) == 8000
    assert max(sizes) < 1100
    assert min(sizes) > 900


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "/4", "a/4", "3/4/5", "-1/4", "1/0", "", "1.5/4", "٣/٤"])
def test_what_is_no_part_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="is no part"):
        Part.parse(text)


def test_the_indexes_of_all_parts_hold_every_picture_once(home: Path) -> None:
    shards = [home / f"shard-{part.number}" for part in PARTS]
    for part, shard in zip(PARTS, shards, strict=True):
        summary = update(shard, home / "p", part=str(part))
        assert (summary.part, summary.images) == (part, len(of_part(home / "p", part)))
    found = [path for shard in shards for path in images(shard)]
    assert sorted(found) == sorted(file.path for file in find_images(os.fsencode(home / "p")))


def test_a_later_run_goes_on_with_the_part_and_refuses_another(home: Path) -> None:
    update(home / FOLDER, home / "p", part="2/3")
    before = images(home / FOLDER)
    encoder = TinyEncoder()
    for part in (None, "2/3"):
        assert update(home / FOLDER, encoder=encoder, part=part).unchanged == len(before)
    for part in ("1/3", "2/4"):
        with pytest.raises(InputError, match=f"holds part 2/3 of its folders, not part {part}"):
            update(home / FOLDER, home / "p", part=part)
    assert (images(home / FOLDER), encoder.embedded) == (before, 0)


def test_an_index_of_whole_folders_takes_no_part(home: Path) -> None:
    update(home / FOLDER, home / "p")
    with pytest.raises(InputError, match="holds all pictures of its folders, not part 1/2"):
        update(home / FOLDER, home / "p", part="1/2")
    assert len(images(home / FOLDER)) == 20


def test_an_empty_part_is_no_unplugged_drive_but_an_empty_folder_may_be(home: Path) -> None:
    empty = next(Part(number, 64) for number in range(1, 65) if not of_part(home / "p", Part(number, 64)))
    for _ in range(2):
        assert update(home / FOLDER, home / "p", part=str(empty)).images == 0
    update(home / "other", home / "p", part="1/2")
    before = images(home / "other")
    (home / "p").rename(home / "aside")
    (home / "p").mkdir()
    for index in (FOLDER, "other"):
        with pytest.raises(InputError, match="No images in"):
            update(home / index)
    assert images(home / "other") == before


def test_files_of_other_parts_show_that_a_folder_is_there(home: Path) -> None:
    update(home / FOLDER, home / "p", part="1/3")
    mine = [home / "p" / name for name in of_part(home / "p", PARTS[0]) if name.startswith("a/")]
    assert len(mine) > 1
    for file in mine:
        file.unlink()
    summary = update(home / FOLDER)
    assert (summary.removed, summary.kept) == (len(mine), [])
    there = len([path for path in images(home / FOLDER) if b"/b/" in path])
    shutil.rmtree(home / "p" / "b")
    assert update(home / FOLDER).kept == [Kept(os.fsencode(home / "p" / "b"), there, away=False)]


def test_a_file_that_moves_to_another_part_leaves_one_index_and_enters_the_other(home: Path) -> None:
    for part in PARTS[:2]:
        update(home / f"shard-{part.number}", home / "p", part=str(part))
    old = min(of_part(home / "p", PARTS[0]))
    new = next(name for number in range(99) if PARTS[1].holds((name := f"new-{number}.png").encode()))
    (home / "p" / old).rename(home / "p" / new)
    left, entered = (update(home / f"shard-{part.number}") for part in PARTS[:2])
    assert (left.removed, left.embedded, entered.embedded) == (1, 0, 1)
    assert os.fsencode(home / "p" / new) in images(home / "shard-2")


def test_the_command_shows_the_part(home: Path, run: Run) -> None:
    done = run("index", "p", "--part", "2/3", "--model", "picturebook", cwd=home)
    assert b"images in part 2/3 (" in done.stderr
    assert json.loads(run("status", "--json", cwd=home).stdout)["part"] == "2/3"
    assert b"2/3 of its roots" in run("status", cwd=home).stdout
    done = run("index", "p", "--part", "1/3", cwd=home)
    assert (done.returncode, b"Make a second index with --index DIR" in done.stderr) == (2, True)
    done = run("index", "p", "--part", "5/4", "--index", "new", cwd=home)
    assert (done.returncode, b"as in 3/16" in done.stderr, (home / "new").exists()) == (2, True, False)
    assert run("forget", "p", cwd=home).returncode == 0
    assert json.loads(run("index", "p", "--json", cwd=home).stdout)["part"] == "2/3"
