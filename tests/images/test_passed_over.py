"""Pictures without the name of one, and what is left out of folders: by whom it is heard of, and in which words."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY, Run, deny, index, paint
from image_files import ImageFile, image_files
from tiny import Watcher, update

from clipsearch.errors import InputError
from clipsearch.images.codecs import optional_packages
from clipsearch.images.codecs.recognising import format_of
from clipsearch.images.codecs.signatures import HEAD, image_ending
from clipsearch.images.extensions import EXTENSIONS
from clipsearch.images.files import Rules
from clipsearch.images.finding import find_images
from clipsearch.images.other_files import Sort, listed, sort_of
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store
from clipsearch.output.hints import with_hints

PB = ("--model", "picturebook")
JXL = b"\xff\x0a" + bytes(range(64))


def searched(root: Path, rules: Rules = Rules()) -> tuple[list[str], dict[str, int]]:  # noqa: B008  (immutable)
    """What is found, relative to the root, and what is left out, by kind."""
    passed: list[str] = []
    found = [file.path for file in find_images(os.fsencode(root), rules, passed_over=passed.append)]
    return [os.path.relpath(os.fsdecode(path), root) for path in found], {kind: passed.count(kind) for kind in passed}


def copies(picture: Path, *names: str) -> None:
    for name in names:
        (picture.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (picture.parent / name).write_bytes(picture.read_bytes())


_hooked: list[bool] = []
_opened: list[list[bytes]] = []


def _note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if _opened and event == "open" and isinstance(arguments[0], (str, bytes)):
        _opened[-1].append(os.fsencode(arguments[0]))


@contextmanager
def opened() -> Iterator[list[bytes]]:
    """The paths of the files that this process opens within, as Python itself tells."""
    if not _hooked:
        sys.addaudithook(_note_opening)  # for ever: it cannot be taken away
        _hooked.append(True)
    _opened.append([])
    try:
        yield _opened[-1]
    finally:
        _opened.pop()


# -- by first bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", image_files(), ids=lambda file: file.name)
def test_first_bytes_tell_what_the_decoders_take(file: ImageFile) -> None:
    is_found = image_ending(file.content[:HEAD], len(file.content)) is not None
    assert is_found == (format_of(file.content) not in (None, "TGA"))


def test_texts_and_noise_are_no_images() -> None:
    texts = (
        b"BM is short for benchmark, and this is a text",
        b"P3 and P6 are forms of PPM",
        b"Pf.\n",
        b"\n\n\n\n" * 90,
    )
    for content in (*texts, b"(" + bytes(400), bytes(2000), b"RIFF\0\0\0\0WAVEfmt " * 9, b"\0\0\0\x20ftypisom" * 9):
        assert image_ending(content[:HEAD], len(content)) is None, content[:16]
    noise = random.Random(0)
    weak = [b"BM", b"\0\0\1\0", b"\x0a", b"\1\xda", b"P6 ", b"(\0\0\0", b"Pf\n", b"P"]
    found = [
        start
        for start in weak
        for _ in range(2000)
        if image_ending(content := start + noise.randbytes(200), len(content)) is not None
    ]
    assert found == []


def test_images_without_an_ending_or_with_an_unknown_one_are_found(tmp_path: Path) -> None:
    copies(
        paint(tmp_path / "a.png", "red"),
        *("download (1)", "photo", "photo.jpg_large", "x.dat", "photo.jpg.1", "2024.05.06", "deep.er/photo", "été"),
    )
    (tmp_path / "notes").write_text("no picture")
    (tmp_path / "table.dat").write_text("no picture at all, but long enough")
    (tmp_path / "empty").touch()
    found, passed = searched(tmp_path)
    assert sorted(found) == sorted(
        [
            "a.png",
            "download (1)",
            "photo",
            "photo.jpg_large",
            "x.dat",
            "photo.jpg.1",
            "2024.05.06",
            "deep.er/photo",
            "été",
        ]
    )
    assert [os.fsencode(name) for name in found] == sorted(os.fsencode(name) for name in found)
    assert passed == {"": 1, ".dat": 1}
    found, passed = searched(tmp_path, Rules(by_name_only=True))
    assert found == ["a.png"]
    assert passed == {"": 6, ".06": 1, ".1": 1, ".dat": 2, ".jpg_large": 1}


BACKUPS = (
    "photo.jpg~",
    "photo~",
    "photo.jpg.bak",
    "photo.jpg.orig",
    "photo.jpg_original",
    "a.tmp",
    "b.part",
    "c.crdownload",
)


def test_backups_are_found_on_demand_only(tmp_path: Path) -> None:
    copies(paint(tmp_path / "a.png", "red"), *BACKUPS)
    for name in ("notes.txt~", "notes.txt.bak", "film.mp4.part"):
        (tmp_path / name).write_text("not looked into")
    found, passed = searched(tmp_path)
    assert found == ["a.png"]
    assert passed == {
        "*~": 2,
        ".bak": 1,
        ".orig": 1,
        "*_original": 1,
        ".tmp": 1,
        ".part": 1,
        ".crdownload": 1,
        ".mp4": 1,
    }
    found, passed = searched(tmp_path, Rules(include_backups=True))
    assert sorted(found) == sorted(["a.png", *BACKUPS])
    assert passed == {".mp4": 1}


def test_nothing_but_files_is_ever_opened_and_nobody_waits(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to("a.png")
    (tmp_path / "outside").symlink_to("/")
    copies(tmp_path / "a.png", "closed")
    with closing(socket.socket(socket.AF_UNIX)) as endpoint:
        before = Path.cwd()
        os.chdir(tmp_path)  # a socket's path must be short
        endpoint.bind("socket")
        os.chdir(before)
        with deny(tmp_path / "closed"):
            assert searched(tmp_path) == (["a.png", "link"], {"": 1})


def test_files_of_known_kinds_are_not_opened(tmp_path: Path) -> None:
    copies(paint(tmp_path / "a.png", "red"), "b.txt", "c.mp4", "d.pdf", "e.xmp", "f.json", "g.bak", "h.dat")
    with opened() as files:
        assert searched(tmp_path) == (["a.png", "h.dat"], {".mp4": 1, ".pdf": 1, ".bak": 1})
    assert [os.path.basename(path) for path in files] == [b"h.dat"]
    with opened() as files:
        searched(tmp_path, Rules(by_name_only=True))
    assert files == []


def test_no_image_of_ours_has_an_ending_of_something_else() -> None:
    assert {sort_of(f"x{ending}".encode())[0] for ending in EXTENSIONS} == {Sort.UNKNOWN}


def test_what_is_hidden_or_beside_images_or_excluded_is_not_counted(tmp_path: Path) -> None:
    for name in (".hidden.mp4", "a.xmp", "a.json", "Thumbs.db", "desktop.ini", "a.txt", "LIST.CSV", "a.aae", "a.mp4"):
        (tmp_path / name).write_text("x")
    assert searched(tmp_path)[1] == {".mp4": 1}
    assert searched(tmp_path, Rules(include_hidden=True))[1] == {".mp4": 2}
    assert searched(tmp_path, Rules(exclude=("*.mp4",)))[1] == {}
    (tmp_path / ".clipsearchignore").write_text("a.*\n")
    assert searched(tmp_path)[1] == {}


def test_names_that_all_end_differently_are_one_kind(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"cache.x{number}").write_text("no picture at all")
    with pytest.raises(InputError, match=r": 100 .*, 1 \.x\d+, .* 195 .* 195 "):
        update(tmp_path / FOLDER, tmp_path)


# -- what is said --------------------------------------------------------------------------------------------


@pytest.fixture
def no_jxl(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    monkeypatch.setattr(optional_packages, "is_installed", lambda _extra: False)


@pytest.mark.usefixtures("no_jxl")
def test_what_an_extra_would_read_is_left_out_with_the_command_that_brings_it(tmp_path: Path) -> None:
    picture = paint(tmp_path / "p" / "a.png", "red")
    copies(picture, "really a png.jxl")
    for name in ("a.jxl", "B.JXL", "without ending"):
        (tmp_path / "p" / name).write_bytes(JXL)
    assert searched(tmp_path / "p") == (["a.png", "really a png.jxl"], {".jxl": 3})
    assert listed({".mp4": 12, ".jxl": 3, ".svg": 1}) == "12 .mp4, 3 .jxl (pip install 'clipsearch[jxl]'), 1 .svg"
    many = {f".{number}": 100 for number in range(20)}
    assert ", 3 .jxl (pip install 'clipsearch[jxl]') and 1,500 others of 15 kinds" in listed(many | {".jxl": 3})
    picture.unlink()
    (tmp_path / "p" / "really a png.jxl").unlink()
    with pytest.raises(InputError) as caught:
        update(tmp_path / FOLDER, tmp_path / "p")
    assert ": 3 .jxl (pip install 'clipsearch[jxl]'). " in str(caught.value)


def test_what_was_left_out_is_one_line_and_status_says_it_again(tmp_path: Path, run: Run) -> None:
    picture = paint(tmp_path / "p" / "a.png", "red")
    copies(picture, "photo", "b.jpg~", "@eaDir/a.png")
    for name in ("a.mp4", "b.mp4", "c.svg", "d.txt"):
        (tmp_path / "p" / name).write_text("x")
    copies(paint(tmp_path / "q" / "other.png", "blue"), "c.bak")
    done = run("index", "p", "q", *PB, "--json", cwd=tmp_path)
    line = "2 .mp4, 1 *~ (--include-backups), 1 .bak (--include-backups), 1 .svg, 1 @eaDir/ (--include-system)"
    assert [text for text in done.stderr.decode().splitlines() if "mp4" in text] == [f"Left out: {line}"]
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["unreadable"]) == (3, [])
    passed = [(one["kind"], one["count"], one["install"], one["option"]) for one in summary["passed_over"]]
    assert passed == [
        (".mp4", 2, None, None),
        ("*~", 1, None, "--include-backups"),
        (".bak", 1, None, "--include-backups"),
        (".svg", 1, None, None),
        ("@eaDir/", 1, None, "--include-system"),
    ]
    assert f"left out    {line}\n" in run("status", cwd=tmp_path).stdout.decode()
    # A run over one of the roots changes what is known of that one alone.
    (tmp_path / "q" / "c.bak").unlink()
    assert index(run, "q", cwd=tmp_path)["passed_over"] == []
    status = json.loads(run("status", "--json", cwd=tmp_path).stdout)
    assert status["passed_over"] == [one for one in summary["passed_over"] if one["kind"] != ".bak"]


def test_the_options_are_remembered_and_contradictions_refused(tmp_path: Path, run: Run) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "photo", "b.jpg~", "@eaDir/c.png")
    assert index(run, "p", *PB, "--include-backups", "--include-system", cwd=tmp_path)["images"] == 4
    assert index(run, cwd=tmp_path)["images"] == 4
    summary = index(run, "--by-name-only", cwd=tmp_path)
    assert (summary["images"], summary["removed"], summary["left_out"]) == (1, 3, 3)
    assert index(run, cwd=tmp_path)["images"] == 1
    assert index(run, "--no-by-name-only", cwd=tmp_path)["images"] == 2
    done = run("index", "--by-name-only", "--include-backups", cwd=tmp_path)
    assert done.returncode == 2
    assert "--include-backups" in done.stderr.decode()


def test_images_of_a_folder_are_the_same_for_commands_without_an_index(tmp_path: Path, run: Run) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "photo", "@eaDir/a.png")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_text("x")
    done = run("score", "p", "--text", "a dog", "--format", "tsv", *PB, cwd=tmp_path)
    assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == ["p/a.png", "p/photo"]
    done = run("score", "films", "--text", "a dog", *PB, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r" films\. .*: 1 \.mp4\.$", done.stderr.decode().rstrip())


# -- what the index knows ------------------------------------------------------------------------------------


def test_an_image_that_the_index_knows_is_not_looked_into_again(tmp_path: Path) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "photo")
    assert update(tmp_path / FOLDER, tmp_path / "p").images == 2
    with opened() as files:
        assert update(tmp_path / FOLDER, tmp_path / "p").unchanged == 2
    assert [path for path in files if path.startswith(os.fsencode(tmp_path / "p"))] == []
    os.utime(tmp_path / "p" / "photo", (1, 1))
    with opened() as files:
        assert update(tmp_path / FOLDER, tmp_path / "p").touched == 1
    assert os.fsencode(tmp_path / "p" / "photo") in files


def test_a_known_image_that_cannot_be_opened_is_unreadable_and_one_that_became_a_text_is_left_out(
    tmp_path: Path,
) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "photo", "x.dat")
    assert update(tmp_path / FOLDER, tmp_path / "p").images == 3
    (tmp_path / "p" / "x.dat").write_text("from now on a list of something")
    with deny(tmp_path / "p" / "photo"):
        summary = update(tmp_path / FOLDER, tmp_path / "p")
    assert [(os.path.basename(path), reason) for path, reason in summary.unreadable] == [
        (b"photo", "Permission denied")
    ]
    assert (summary.images, summary.left_out, summary.passed_over) == (1, 1, {".dat": 1})
    summary = update(tmp_path / FOLDER, tmp_path / "p")
    assert (summary.images, summary.unreadable) == (2, [])


def test_broken_images_without_an_ending_are_named_once_and_tried_when_they_change(tmp_path: Path) -> None:
    picture = paint(tmp_path / "p" / "a.png", "red")
    (tmp_path / "p" / "photo").write_bytes(picture.read_bytes()[:60])
    for total in (2, 0):
        progress = Watcher()
        summary = update(tmp_path / FOLDER, tmp_path / "p", progress=progress)
        assert ([os.path.basename(path) for path, _ in summary.unreadable], progress.total) == ([b"photo"], total)
    copies(picture, "photo")
    assert update(tmp_path / FOLDER, tmp_path / "p").images == 2


# -- folders of systems --------------------------------------------------------------------------------------


SYSTEM = (
    *("@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "Trip Previews.lrdata"),
    *("A.photoslibrary/resources/derivatives", "Old.photolibrary/Thumbnails", "@Recycle"),
)
HIDDEN = (".thumbnails", ".Trash-1000", ".Trashes", ".@__thumb")
OURS = (
    "resources/derivatives",
    "A.photoslibrary/originals",
    "A.photoslibrary/resources/renders",
    "Thumbnails",
    "eaDir",
)


def test_folders_of_systems_are_left_out_and_counted_as_one_each(tmp_path: Path) -> None:
    copies(paint(tmp_path / "a.png", "red"), *(f"sub/{name}/deep/b.png" for name in (*SYSTEM, *HIDDEN, *OURS)))
    found, passed = searched(tmp_path)
    assert found == sorted(["a.png", *(f"sub/{name}/deep/b.png" for name in OURS)])
    assert passed == {
        **dict.fromkeys(("@eaDir/", "#recycle/", "System Volume Information/", "*.lrdata/", "@Recycle/"), 1),
        "$RECYCLE.BIN/": 2,
        "*.photoslibrary/resources/derivatives/": 1,
        "*.photolibrary/Thumbnails/": 1,
    }
    found, hidden_too = searched(tmp_path, Rules(include_hidden=True))
    assert found == sorted(["a.png", *(f"sub/{name}/deep/b.png" for name in OURS)])
    assert hidden_too == passed | dict.fromkeys((".thumbnails/", ".Trash-*/", ".Trashes/", ".@__thumb/"), 1)
    found, passed = searched(tmp_path, Rules(include_hidden=True, include_system=True))
    assert (len(found), passed) == (1 + len(SYSTEM) + len(HIDDEN) + len(OURS), {})


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "A.photoslibrary/resources/derivatives"])
def test_a_root_that_is_such_a_folder_counts(tmp_path: Path, name: str) -> None:
    copies(paint(tmp_path / "a.png", "red"), f"{name}/b.png")
    assert searched(tmp_path / name) == (["b.png"], {})


def before_they_were_left_out(folder: Path) -> None:
    """Make the index look like one of a version that knew of no folders of systems."""
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.execute("""UPDATE roots SET options = '{"exclude": [], "readers": null}'""")


def test_what_an_older_index_holds_of_them_is_removed_and_said_and_no_drive_is_missed(tmp_path: Path, run: Run) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "@eaDir/a.png", "@eaDir/b.png", "@eaDir/c.png", "d.png")
    index(run, "p", *PB, "--include-system", cwd=tmp_path)
    before_they_were_left_out(tmp_path / FOLDER)
    done = run("index", cwd=tmp_path)
    talk = done.stderr.decode()
    assert (done.returncode, "Kept" in talk) == (0, False)
    assert "Left out: 1 @eaDir/ (--include-system)" in talk
    assert "2 images in the index (2 unchanged, 3 removed, all left out now)" in talk


def test_a_root_with_nothing_else_says_so_and_loses_nothing(tmp_path: Path) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "@eaDir/a.png", "@eaDir/b.png")
    (tmp_path / "p" / "a.png").unlink()
    update(tmp_path / FOLDER, tmp_path / "p", rules=Rules(include_system=True))
    before_they_were_left_out(tmp_path / FOLDER)
    for rules in (None, Rules(exclude=("*.png",), include_system=True)):
        with pytest.raises(InputError) as caught:
            update(tmp_path / FOLDER, tmp_path / "p", rules=rules)
        assert ": the 2 that " in str(caught.value)
        assert "drive" not in str(caught.value)
        assert (": 1 @eaDir/. " in str(caught.value)) == (rules is None)
        assert ("--include-system" in with_hints(caught.value)) == (rules is None)
    with closing(Store.open(tmp_path / FOLDER)) as store:
        assert store.count() == 2
    assert update(tmp_path / FOLDER, tmp_path / "p", allow_empty=True).left_out == 2


def test_some_that_are_left_out_and_some_that_are_gone_are_told_apart(tmp_path: Path) -> None:
    copies(paint(tmp_path / "p" / "a.png", "red"), "b.png", "@eaDir/a.png", "usb/c.png", "usb/d.png")
    update(tmp_path / FOLDER, tmp_path / "p", rules=Rules(include_system=True))
    before_they_were_left_out(tmp_path / FOLDER)
    (tmp_path / "p" / "b.png").unlink()
    (tmp_path / "p" / "usb").rename(tmp_path / "unplugged")
    summary = update(tmp_path / FOLDER, tmp_path / "p")
    assert (summary.removed, summary.left_out, [kept.images for kept in summary.kept]) == (2, 1, [2])


def test_the_lists_in_the_documents_are_those_of_the_code() -> None:
    from clipsearch.images import other_files

    text = (REPOSITORY / "docs" / "formats.md").read_text("utf-8")
    section = text.partition("## What is left out\n")[2].partition("\n## ")[0]
    for kind in other_files._OF_SYSTEMS:
        assert f"`{kind}`" in section
    named = {word for line in section.splitlines() if line.startswith("| ") for word in line.split("`")[1::2]}
    for lists in (other_files._OTHER, other_files._BESIDE, other_files._BACKUP):
        assert {os.fsdecode(ending) for ending in lists} <= named
